"""What the network is asked for: a combination a(t) x1 + b(t) x0 of the datum and the noise in its input.

With the state x_t = alpha x1 + sigma x0 that makes two equations for x1 and x0, so whatever is predicted, everything
else follows: `convert` solves them. They have no solution where the determinant alpha b - sigma a is 0: noise says
nothing new about a state that is all noise, nor the datum about one without any.

A target is named in a config by its function: "velocity", "noise", "edm:sigma_data=0.5".
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vidflow.errors import UsageError
from vidflow.flow.paths import Path, align

Times = Float[Array, "..."]
SMALLEST = 1e-8


class Target(NamedTuple):
    """Attributes:
    name: what it is called in messages.
    coefficients: (path, t) -> (a, b) of what is predicted, a x1 + b x0.
    input_scale: (path, t) -> the factor by which the network's input is the state.
    """

    name: str
    coefficients: Callable[[Path, Times], tuple[Times, Times]]
    input_scale: Callable[[Path, Times], Times] = lambda path, t: jnp.ones_like(t)


def velocity() -> Target:
    """dx_t / dt = alpha' x1 + sigma' x0, what the samplers integrate (Lipman et al., eq. 9; Movie Gen, eq. 2)."""
    return Target("velocity", lambda path, t: (path.alpha_dot(t), path.sigma_dot(t)))


def noise() -> Target:
    """x0 (Ho et al. 2020)."""
    return Target("noise", lambda path, t: (jnp.zeros_like(t), jnp.ones_like(t)))


def data() -> Target:
    """x1."""
    return Target("data", lambda path, t: (jnp.ones_like(t), jnp.zeros_like(t)))


def score() -> Target:
    """The gradient of log p(x_t | x1), -x0 / sigma."""
    return Target("score", lambda path, t: (jnp.zeros_like(t), -1.0 / path.sigma(t)))


def rotation() -> Target:
    """sigma x1 - alpha x0, the v-prediction of Salimans and Ho (2022) with the sign of the velocity.

    On a path of constant variance it is the velocity per radian, bounded and known at both ends: the arm of Movie
    Gen's table 8a that flow matching is compared with.
    """
    return Target("rotation", lambda path, t: (path.sigma(t), -path.alpha(t)))


def edm(sigma_data: float = 1.0) -> Target:
    """The output F of Karras et al. (2022), table 1, whose preconditioning makes input and target of unit variance.

    Their state is x_t / alpha with noise level s = sigma / alpha: D = c_skip x_t / alpha + c_out F. With r^2 = sigma^2
    + (alpha sigma_data)^2 that is F = (sigma x1 - alpha sigma_data^2 x0) / (sigma_data r), and the input is x_t / r.
    Their training is this target on the linear path with s_min = 0, where ln s = -logit t, and times
    "logit_normal:mean=1.2,std=1.2". On a path of constant variance and data of unit variance it is `rotation`.
    """

    def norm(path: Path, t: Times) -> Times:
        return jnp.sqrt(path.sigma(t) ** 2 + (sigma_data * path.alpha(t)) ** 2)

    return Target(
        "edm",
        lambda path, t: (
            path.sigma(t) / (sigma_data * norm(path, t)),
            -sigma_data * path.alpha(t) / norm(path, t),
        ),
        lambda path, t: 1.0 / norm(path, t),
    )


def value(
    target: Target, path: Path, x1: Float[Array, "B ..."], x0: Float[Array, "B ..."], t: Float[Array, "B ..."]
) -> Float[Array, "B ..."]:
    """What the network should say. `t` has shape [B], or [B, T] for a time per frame."""
    a, b = target.coefficients(path, align(t, x1))
    return a * x1 + b * x0


def convert(
    source: Target, wanted: Target, path: Path, prediction: Float[Array, "..."], x: Float[Array, "..."], t: Times
) -> Float[Array, "..."]:
    """The `wanted` target out of a prediction of the `source` target at the state x.

    Shapes of prediction and x agree and t broadcasts against them. A target converts to itself exactly.
    """
    alpha, sigma = path.alpha(t), path.sigma(t)
    (a, b), (c, d) = source.coefficients(path, t), wanted.coefficients(path, t)
    determinant = alpha * b - sigma * a
    return (c * b - a * d) / determinant * x + (alpha * d - sigma * c) / determinant * prediction


def as_velocity(
    network: Callable[..., Float[Array, "B ..."]], target: Target, path: Path
) -> Callable[..., Float[Array, "B ..."]]:
    """The velocity field (x, t, ...) -> v of a network of that target; t is a scalar, [B], or [B, T]."""
    wanted = velocity()

    def field(x: Float[Array, "B ..."], t: Times, *rest: object) -> Float[Array, "B ..."]:
        times = align(t, x) if t.ndim else t
        prediction = network(x * target.input_scale(path, times), t, *rest)
        return convert(target, wanted, path, prediction, x, times)

    return field


def check(target: Target, path: Path, times: Float[np.ndarray, "n"]) -> None:
    """Whether a network of that target can be asked at each of these times.

    Raises:
      UsageError: at one of them the target and the state do not determine the velocity, naming it and why.
    """
    t = jnp.asarray(times, jnp.float32)
    alpha, sigma = (np.asarray(f(t)) for f in (path.alpha, path.sigma))
    a, b = (np.asarray(x) for x in target.coefficients(path, t))
    c, d = (np.asarray(x) for x in velocity().coefficients(path, t))
    with np.errstate(invalid="ignore", over="ignore"):
        determinant = alpha * b - sigma * a
        numbers = np.stack([a, b, c, d, determinant])
        bad = ~np.isfinite(numbers).all(axis=0) | (np.abs(determinant) < SMALLEST)
    if not bad.any():
        return
    first = int(np.argmax(bad))
    near, remedy = ("noise", "start") if times[first] < 0.5 else ("data", "end")
    if alpha[first] < SMALLEST and abs(determinant[first]) < SMALLEST:
        why = "the state has no trace of the datum (alpha = 0), and what is predicted says nothing of it either"
    elif sigma[first] < SMALLEST:
        why = "the state has no noise (sigma = 0), and what is predicted says nothing of it or is infinite"
    else:
        why = "the target or the velocity is not finite"
    raise UsageError(
        f"A network of the target '{target.name}' cannot be sampled at t = {times[first]:g}, the end of {near}: there "
        f"{why}. Set config.sampling.{remedy} a little inside, or take another config.flow.target or path."
    )
