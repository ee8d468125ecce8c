"""Sampling with fresh noise at every step: other paths, the same distribution at every time."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vidflow.errors import UsageError
from vidflow.flow import targets
from vidflow.flow.paths import Path
from vidflow.flow.solvers import Solver, Times, Velocity


def euler_maruyama(path: Path, keys: Key[Array, "B"], churn: float = 1.0) -> Solver:
    """dx = (v + g^2 / 2 score) dt + g dW with g^2 = churn sigma(t): weak order 1 (Ma et al. 2024, eq. 5).

    Any g keeps the marginal distributions; this one vanishes where the noise does, so that the product with the score,
    -x0 / sigma, stays finite. A churn of 0 is `euler`.

    keys: of the rows. The noises of a row are of `fold_in(its key, step)`: the batch size changes none.

    Raises:
      UsageError: a churn below 0, which is no amount of noise.
    """
    if not churn >= 0.0:
        raise UsageError(f"A churn of {churn:g} is no amount of noise: give 0 or more in config.sampling.solver.")

    def solve(velocity: Velocity, x0: Float[Array, "B ..."], times: Times) -> Float[Array, "B ..."]:
        times = np.asarray(times, np.float64)
        table = jnp.asarray(np.stack([times[:-1], np.diff(times)], axis=1), x0.dtype)
        source, wanted = targets.velocity(), targets.noise()

        def fresh(key: Array, index: Array) -> Array:
            return jax.random.normal(jax.random.fold_in(key, index), x0.shape[1:], x0.dtype)

        def step(x: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
            (t, h), index = row
            v = velocity(x, t)
            noise = targets.convert(source, wanted, path, v, x, t)
            drawn = jax.vmap(fresh, (0, None))(keys, index)
            return x + h * (v - 0.5 * churn * noise) + jnp.sqrt(h * churn * path.sigma(t)) * drawn, None

        return jax.lax.scan(step, x0, (table, jnp.arange(len(table))))[0]

    return solve
