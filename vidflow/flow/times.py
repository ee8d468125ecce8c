"""Densities of the training time t in (0, 1): each is a function key -> t, one draw a key."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Key

TimeDensity = Callable[[Key[Array, ""]], Float[Array, ""]]


def uniform() -> TimeDensity:
    """t ~ U(0, 1)."""
    return lambda key: jax.random.uniform(key)


def logit_normal(mean: float = 0.0, std: float = 1.0) -> TimeDensity:
    """t = sigmoid(mean + std n), n ~ N(0, 1): most draws fall where noise and data are balanced.

    Movie Gen section 3.1.2 uses mean 0, std 1 (from Esser et al. 2024). A negative mean dwells nearer to the noise,
    where the layout of the video is decided.
    """
    return lambda key: jax.nn.sigmoid(mean + std * jax.random.normal(key))
