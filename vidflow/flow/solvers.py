"""Solvers of dx/dt = v(x, t): from noise at the first time to a sample at the last.

A solver is a function (velocity, x0, times) -> x, named in a config by the function that makes it: "euler",
"euler_maruyama:churn=0.5". Those in `multistep.py`, `adaptive.py` and `stochastic.py` are made the same way.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Velocity = Callable[[Float[Array, "B ..."], Float[Array, ""]], Float[Array, "B ..."]]
Times = Float[np.ndarray, "steps_plus_one"]
Solver = Callable[[Velocity, Float[Array, "B ..."], Times], Float[Array, "B ..."]]


def euler() -> Solver:
    """First order, one evaluation a step (Movie Gen, section 3.4.2, prefers it to midpoint)."""
    return _one_step(lambda velocity, x, t, h: x + h * velocity(x, t))


def midpoint() -> Solver:
    """Second order, two evaluations a step: the slope in the middle."""
    return _one_step(lambda velocity, x, t, h: x + h * velocity(x + 0.5 * h * velocity(x, t), t + 0.5 * h))


def heun() -> Solver:
    """Second order, two evaluations a step: the mean of the slopes at both ends (Karras et al. 2022, algorithm 1). The
    last step is Euler's: at the last time a velocity need not exist, as that of a model which says the data."""

    def step(velocity: Velocity, x: Array, t: Array, h: Array) -> Array:
        first = velocity(x, t)
        return x + 0.5 * h * (first + velocity(x + h * first, t + h))

    def solve(velocity: Velocity, x0: Float[Array, "B ..."], times: Times) -> Float[Array, "B ..."]:
        return euler()(velocity, _one_step(step)(velocity, x0, times[:-1]), times[-2:])

    return solve


def _one_step(step: Callable[[Velocity, Array, Array, Array], Array]) -> Solver:
    """Applies (velocity, x, t, h) -> x along increasing times."""

    def solve(velocity: Velocity, x0: Float[Array, "B ..."], times: Times) -> Float[Array, "B ..."]:
        times = np.asarray(times, np.float64)
        pairs = jnp.asarray(np.stack([times[:-1], np.diff(times)], axis=1), x0.dtype)
        return jax.lax.scan(lambda x, pair: (step(velocity, x, *pair), None), x0, pairs)[0]

    return solve
