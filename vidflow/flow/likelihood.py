"""How likely a datum is under the flow: the change of variables along the ODE (Chen et al. 2018, eq. 8)."""

import math
from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vidflow.flow.solvers import Velocity

Divergence = Callable[[Callable[[Array], Array], Array], tuple[Array, Float[Array, "B"]]]


def log_likelihood(
    velocity: Velocity,
    x1: Float[Array, "B ..."],
    divergence: Divergence,
    *,
    start: float = 0.0,
    end: float = 1.0,
    tolerance: float = 1e-5,
) -> Float[Array, "B"]:
    """log p(x1) in nats, of each row: log N(x0; 0, I) less the divergence of the velocity along the way back to x0.

    Args:
      velocity: the field (x, t) -> v, without guidance, which has no likelihood.
      divergence: `exact`, or `hutchinson` with a key.
      start, end: times of noise and data; inside (0, 1) where the field has no values at the ends.
      tolerance: of the integration by Dopri5, relative and absolute.
    """

    def slope(t: Array, state: tuple[Array, Array], _: None) -> tuple[Array, Array]:
        return divergence(lambda x: velocity(x, t), state[0])

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(slope),
        diffrax.Dopri5(),
        t0=jnp.asarray(end, x1.dtype),
        t1=jnp.asarray(start, x1.dtype),
        dt0=None,
        y0=(x1, jnp.zeros(len(x1), x1.dtype)),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
    )
    x0, grown = (leaf[-1] for leaf in solution.ys)
    x0 = x0.reshape(len(x0), -1)
    # Back from data to noise the integral has the sign that the formula wants: log p(x1) = log p(x0) + grown.
    return -0.5 * (x0**2).sum(axis=1) - 0.5 * x0.shape[1] * math.log(2 * math.pi) + grown


def exact() -> Divergence:
    """The trace of the Jacobian, a product for every element of a row: for few dimensions.

    Rows must not see each other.
    """

    def divergence(field: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
        size = math.prod(x.shape[1:])

        def slope(index: Array) -> Array:
            direction = jnp.zeros(size, x.dtype).at[index].set(1.0).reshape(x.shape[1:])
            (along,) = pull(jnp.broadcast_to(direction, x.shape))
            return (along * direction).reshape(len(x), -1).sum(axis=1)

        # Backwards, for parts of our models (`vidflow/linear.py`) have no derivative forwards. The trace is the same.
        value, pull = jax.vjp(field, x)
        return value, jax.lax.map(slope, jnp.arange(size)).sum(axis=0)

    return divergence


def hutchinson(key: Key[Array, ""], probes: int = 1) -> Divergence:
    """An unbiased estimate by random signs e: the mean of e . (J' e), the same signs along the whole way (Hutchinson
    1989; Grathwohl et al. 2019)."""

    def divergence(field: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
        value, pull = jax.vjp(field, x)

        def probe(key: Array) -> Array:
            signs = jax.random.rademacher(key, x.shape, x.dtype)
            return (pull(signs)[0] * signs).reshape(len(x), -1).sum(axis=1)

        return value, jax.lax.map(probe, jax.random.split(key, probes)).mean(axis=0)

    return divergence
