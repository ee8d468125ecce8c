"""Probability paths: how a datum is mixed with noise at time t.

Every path here is Gaussian, x_t = alpha(t) x1 + sigma(t) x0 with x1 the datum and x0 ~ N(0, I), so a path is four
scalar functions of t. The conditional velocity is its time derivative, alpha'(t) x1 + sigma'(t) x0.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Schedule = Callable[[Float[Array, "..."]], Float[Array, "..."]]


class Path(NamedTuple):
    """A Gaussian path by its coefficients and their time derivatives, each a function of t in [0, 1]."""

    alpha: Schedule
    sigma: Schedule
    alpha_dot: Schedule
    sigma_dot: Schedule


def linear(s_min: float = 1e-5) -> Path:
    """The straight path x_t = t x1 + (1 - (1 - s_min) t) x0 (Movie Gen, section 3.1.2; Lipman et al., eq. 22).

    At t = 0 the state is pure noise exactly, so training and sampling agree on the first step; `s_min` keeps a
    little noise at t = 1.
    """
    return Path(
        alpha=lambda t: t,
        sigma=lambda t: 1.0 - (1.0 - s_min) * t,
        alpha_dot=jnp.ones_like,
        sigma_dot=lambda t: jnp.full_like(t, s_min - 1.0),
    )


def align(t: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Append axes to t, [B] or [B, T], until it broadcasts against x, [B, T, ...]."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def interpolate(
    path: Path, x1: Float[Array, "B ..."], x0: Float[Array, "B ..."], t: Float[Array, "B ..."]
) -> Float[Array, "B ..."]:
    """The state x_t between noise x0 and datum x1. `t` has shape [B], or [B, T] for a time per frame."""
    t = align(t, x1)
    return path.alpha(t) * x1 + path.sigma(t) * x0


def velocity(
    path: Path, x1: Float[Array, "B ..."], x0: Float[Array, "B ..."], t: Float[Array, "B ..."]
) -> Float[Array, "B ..."]:
    """The conditional velocity d x_t / dt, the regression target. Same shapes as `interpolate`."""
    t = align(t, x1)
    return path.alpha_dot(t) * x1 + path.sigma_dot(t) * x0
