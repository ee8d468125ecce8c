"""Densities of the training time t in (0, 1), each by its quantile function u -> t: for u ~ U(0, 1), t has the density.

A density is named in a config by its function: "uniform", "logit_normal:mean=-0.8,std=1.2".
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from vidflow.errors import UsageError

TimeDensity = Callable[[Float[Array, "..."]], Float[Array, "..."]]
LAST = 1.0 - 1e-7  # that is drawn


def uniform() -> TimeDensity:
    """t ~ U(0, 1)."""
    return lambda u: u


def logit_normal(mean: float = 0.0, std: float = 1.0) -> TimeDensity:
    """t = sigmoid(mean + std n), n ~ N(0, 1): most draws fall where noise and data are balanced.

    Movie Gen section 3.1.2 uses mean 0, std 1 (from Esser et al. 2024). A negative mean dwells nearer to the noise,
    where the layout of the video is decided.
    """
    return lambda u: jax.nn.sigmoid(mean + std * jax.scipy.special.ndtri(u))


def mode(scale: float = 1.29) -> TimeDensity:
    """Esser et al. (2024), eq. 20: for scale > 0 (to 1.75) more of the middle, for scale < 0 (from -1) of the ends.

    1 - u - scale (cos^2(pi u / 2) - 1 + u) in their direction of time.
    """
    return lambda u: u + scale * (jnp.cos(0.5 * jnp.pi * u) ** 2 - 1.0 + u)


def cosmap() -> TimeDensity:
    """Esser et al. (2024), eq. 21: the signal-to-noise ratios of the cosine path, on the linear one."""
    return lambda u: 1.0 / (jnp.tan(0.5 * jnp.pi * (1.0 - u)) + 1.0)


def shifted(factor: float = 3.0, mean: float = 0.0, std: float = 1.0) -> TimeDensity:
    """A logit-normal moved towards the noise for more pixels: Esser et al. (2024), eq. 23, in our direction of time.

    t / (factor - (factor - 1) t) has the logit of t less log factor. Their factor is the square root of the ratio of
    pixels (3 at 1024 x 1024); HunyuanVideo's is 7.
    """
    density = logit_normal(mean, std)
    return lambda u: shift(density(u), factor)


def shift(t: Float[Array | np.ndarray, "..."], factor: float) -> Float[Array | np.ndarray, "..."]:
    """Times moved towards the noise, logit t - log factor; 0 and 1 stay."""
    return t / (factor - (factor - 1.0) * t)


def check(density: TimeDensity) -> None:
    """Raises UsageError: it is no quantile function, as with an argument that it was not meant for."""
    with jax.ensure_compile_time_eval():
        t = np.asarray(density(jnp.linspace(0.01, 0.99, 99)))
    if not (t[0] >= 0.0 and t[-1] <= 1.0 and t[0] < t[-1] and np.all(np.diff(t) >= 0.0)):
        raise UsageError(
            f"config.flow.times is no density of times: its quantiles from 0.01 to 0.99 go from {t[0]:g} to {t[-1]:g}, "
            "and must grow within 0 and 1: correct its arguments."
        )


def draw(
    density: TimeDensity,
    keys: Key[Array, "B"],
    *,
    frames: int | None = None,
    strata: tuple[Int[Array, "B"], int] | None = None,
) -> Float[Array, "B ..."]:
    """Times [B], or [B, frames], one for each row or frame.

    Args:
      keys: one for each row, on which alone its time depends.
      strata: (row of the batch, size of the batch): u of row r is drawn from the r-th of so many equal parts of (0, 1),
        so that every batch covers all times (Kingma et al. 2021, appendix I.1). Of frames that is so for the first:
        in one part all frames of a row would have one time.
    """
    shape = () if frames is None else (frames,)
    tiny = jnp.finfo(jnp.float32).tiny
    u = jax.vmap(lambda key: jax.random.uniform(key, shape, minval=tiny))(keys)
    if strata is not None:
        row, rows = strata
        first = (...,) if frames is None else (..., 0)
        u = u.at[first].set((row % rows + u[first]) / rows)
    # Numbers of float32 next to 1 round to it, where some paths end in an infinity: so do quantiles, and their times.
    return jnp.minimum(density(jnp.clip(u, 1e-7, LAST)), LAST)
