"""Denoising diffusion in discrete steps with a learned variance, as DiT trains and samples it.

Ho et al. 2020; Nichol and Dhariwal 2021 for the variance, the loss and fewer steps. Level k = 0 ... K - 1 counts noise
upwards: x_k = sqrt(alpha_bar_k) x1 + sqrt(1 - alpha_bar_k) x0. To the network a level is the flow time 1 - k / K, so
that data lie at t = 1 here too.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vidflow.errors import UsageError
from vidflow.flow.paths import align
from vidflow.typing import RowKeys

# (x, t) -> the predicted noise, and where between its bounds the log variance lies, -1 to 1; both of the shape of x.
Network = Callable[[Float[Array, "B ..."], Float[Array, "B"]], tuple[Float[Array, "B ..."], Float[Array, "B ..."]]]


class Diffusion(NamedTuple):
    """Attributes:
    alpha_bar: [K] how much of the datum's variance each level keeps, falling.
    time: [K] flow times that the network is told.
    """

    alpha_bar: Float[np.ndarray, "K"]
    time: Float[np.ndarray, "K"]

    @property
    def before(self) -> Float[np.ndarray, "K"]:
        """alpha_bar of the level below; 1, the datum itself, below the first."""
        return np.append(1.0, self.alpha_bar[:-1])

    @property
    def beta(self) -> Float[np.ndarray, "K"]:
        return 1.0 - self.alpha_bar / self.before

    @property
    def added(self) -> Float[np.ndarray, "K"]:
        """1 - alpha_bar, the variance of each level's noise: in float64, for float32 has few digits of it left."""
        return 1.0 - self.alpha_bar

    @property
    def log_variance_bounds(self) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K"]]:
        """log beta~ and log beta, between which the variance of a step lies (Nichol and Dhariwal, eq. 15). That of the
        first level, whose beta~ is 0, takes the second's."""
        posterior = self.beta * (1.0 - self.before) / self.added
        return np.log(np.append(posterior[1], posterior[1:])), np.log(self.beta)


def linear(levels: int = 1000, first: float = 1e-4, last: float = 0.02) -> Diffusion:
    """Betas that grow linearly (Ho et al. 2020, section 4)."""
    kept = np.cumprod(1.0 - np.linspace(first, last, levels))
    return Diffusion(kept, 1.0 - np.arange(levels) / levels)


def respaced(diffusion: Diffusion, steps: int) -> Diffusion:
    """The same noise in `steps` of its levels, evenly spaced, the lowest and the highest among them.

    Raises:
      UsageError: fewer than 2 steps, or more than there are levels.
    """
    levels = len(diffusion.alpha_bar)
    if not 2 <= steps <= levels:
        raise UsageError(f"DDPM of {levels} levels is sampled in 2 to {levels} steps, not {steps}.")
    kept = np.round(np.linspace(0, levels - 1, steps)).astype(int)
    return Diffusion(diffusion.alpha_bar[kept], diffusion.time[kept])


def posterior_mean(
    diffusion: Diffusion, x1: Float[Array, "B ..."], x: Float[Array, "B ..."], level: Int[Array, "B"]
) -> Float[Array, "B ..."]:
    """The mean of x one level lower, given the datum and x (Ho et al., eq. 7)."""
    before, beta, added = diffusion.before, diffusion.beta, diffusion.added
    shares = np.sqrt(before) * beta / added, np.sqrt(1.0 - beta) * (1.0 - before) / added
    of_datum, of_x = (_at(share, level, x) for share in shares)
    return of_datum * x1 + of_x * x


def datum(
    diffusion: Diffusion, noise: Float[Array, "B ..."], x: Float[Array, "B ..."], level: Int[Array, "B"]
) -> Float[Array, "B ..."]:
    """The datum that x and its noise imply."""
    alpha, sigma = _at(np.sqrt(diffusion.alpha_bar), level, x), _at(np.sqrt(diffusion.added), level, x)
    return (x - sigma * noise) / alpha


def log_variance(diffusion: Diffusion, share: Float[Array, "B ..."], level: Int[Array, "B"]) -> Float[Array, "B ..."]:
    """Between the bounds, -1 for the lower and 1 for the upper (Nichol and Dhariwal, eq. 15)."""
    low, high = (_at(table, level, share) for table in diffusion.log_variance_bounds)
    return low + 0.5 * (share + 1.0) * (high - low)


def loss(
    network: Network, keys: RowKeys, x1: Float[Array, "B ..."], diffusion: Diffusion
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """The hybrid loss: squared error of the noise, and the variational bound in bits for each element by which the
    variance alone learns (Nichol and Dhariwal, eq. 16, their weights as in DiT's code: 1 and 1).

    The last term of the bound, the likelihood of the datum at the first level, is that of a density: latents have no
    bins of pixels, over which DiT's code integrates.

    Returns:
      The loss of each row and its flow time.
    """
    noise_key, level_key = jax.vmap(jax.random.split, out_axes=1)(keys)
    x1 = x1.astype(jnp.float32)
    x0 = jax.vmap(lambda key, x: jax.random.normal(key, x.shape))(noise_key, x1)
    level = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(diffusion.alpha_bar)))(level_key)
    alpha, sigma = _at(np.sqrt(diffusion.alpha_bar), level, x1), _at(np.sqrt(diffusion.added), level, x1)
    x = alpha * x1 + sigma * x0
    t = jnp.asarray(diffusion.time, jnp.float32)[level]
    noise, share = network(x, t)
    mean = posterior_mean(diffusion, datum(diffusion, jax.lax.stop_gradient(noise), x, level), x, level)
    bound = _bound(diffusion, x1, x, level, mean, log_variance(diffusion, share, level))
    each = jnp.square(noise - x0) + bound
    return each.mean(axis=tuple(range(1, each.ndim))), t


def sample(network: Network, x0: Float[Array, "B ..."], diffusion: Diffusion, keys: RowKeys) -> Float[Array, "B ..."]:
    """From noise to data, one level at a time (Ho et al., algorithm 2). Row r draws `fold_in(keys[r], level)`."""

    def step(x: Array, level: Array) -> tuple[Array, None]:
        levels = jnp.broadcast_to(level, x.shape[:1])
        noise, share = network(x, jnp.asarray(diffusion.time, jnp.float32)[levels])
        mean = posterior_mean(diffusion, datum(diffusion, noise, x, levels), x, levels)
        fresh = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, level), x.shape[1:]))(keys)
        deviation = jnp.exp(0.5 * log_variance(diffusion, share, levels))
        return mean + jnp.where(level > 0, deviation * fresh, 0.0), None

    return jax.lax.scan(step, x0, jnp.arange(len(diffusion.alpha_bar))[::-1])[0]


def _bound(diffusion: Diffusion, x1: Array, x: Array, level: Array, mean: Array, log_variance: Array) -> Array:
    """The term of the variational bound of this level, in bits, of each element."""
    true_mean = posterior_mean(diffusion, x1, x, level)
    true_log = _at(diffusion.log_variance_bounds[0], level, x)
    apart = jnp.square(true_mean - mean) * jnp.exp(-log_variance)
    divergence = 0.5 * (log_variance - true_log + jnp.exp(true_log - log_variance) - 1.0 + apart)
    first = 0.5 * (jnp.log(2.0 * jnp.pi) + log_variance + jnp.square(x1 - mean) * jnp.exp(-log_variance))
    return jnp.where(align(level.astype(jnp.float32), x) == 0, first, divergence) / jnp.log(2.0)


def _at(table: Float[np.ndarray, "K"], level: Int[Array, "B"], x: Array) -> Float[Array, "B ..."]:
    return align(jnp.asarray(table, jnp.float32)[level], x)
