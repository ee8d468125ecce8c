"""Solvers of dx/dt = v(x, t): from noise at the first time to a sample at the last."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Velocity = Callable[[Float[Array, "B ..."], Float[Array, ""]], Float[Array, "B ..."]]


def euler(
    velocity: Velocity, x0: Float[Array, "B ..."], times: Float[np.ndarray, "steps_plus_one"]
) -> Float[Array, "B ..."]:
    """First-order Euler steps along increasing `times` (Movie Gen, section 3.4.2, prefers it to midpoint)."""
    times = np.asarray(times, np.float64)
    pairs = jnp.asarray(np.stack([times[:-1], np.diff(times)], axis=1), jnp.float32)

    def step(x: Float[Array, "B ..."], pair: Float[Array, "2"]) -> tuple[Float[Array, "B ..."], None]:
        t, h = pair
        return x + h * velocity(x, t), None

    return jax.lax.scan(step, x0, pairs)[0]
