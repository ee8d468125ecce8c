"""Probability paths: how a datum is mixed with noise at time t.

Every path here is Gaussian, x_t = alpha(t) x1 + sigma(t) x0 with x1 the datum and x0 ~ N(0, I), so a path is four
scalar functions of t. The conditional velocity is its time derivative, alpha'(t) x1 + sigma'(t) x0.

A path is named in a config by its function: "linear", "variance_preserving:zero_terminal_snr=true".
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vidflow.errors import UsageError

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


def variance_preserving(beta_min: float = 0.1, beta_max: float = 20.0, zero_terminal_snr: bool = False) -> Path:
    """The diffusion of DDPM in continuous time, alpha^2 + sigma^2 = 1 (Song et al. 2021, eq. 32 to 33).

    With s = 1 - t: log alpha = -s^2 (beta_max - beta_min) / 4 - s beta_min / 2. A trace of the datum, alpha(0) =
    0.0066 with the defaults, is left at t = 0, where sampling nevertheless starts from pure noise.
    `zero_terminal_snr` removes it: alpha is shifted to 0 there and scaled to keep alpha(1) = 1 (Lin et al. 2024,
    algorithm 1). The velocity is infinite at t = 1, as the square root in sigma is steep there.
    """

    def log_plain(t: Float[Array, "..."]) -> Float[Array, "..."]:
        s = 1.0 - t
        return -0.25 * s * s * (beta_max - beta_min) - 0.5 * s * beta_min

    def plain_dot(t: Float[Array, "..."]) -> Float[Array, "..."]:
        return 0.5 * (beta_min + (1.0 - t) * (beta_max - beta_min)) * jnp.exp(log_plain(t))

    def left(t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.exp(log_plain(jnp.zeros_like(t))) if zero_terminal_snr else jnp.zeros_like(t)

    def alpha(t: Float[Array, "..."]) -> Float[Array, "..."]:
        return (jnp.exp(log_plain(t)) - left(t)) / (1.0 - left(t))

    def lacking(t: Float[Array, "..."]) -> Float[Array, "..."]:
        return -jnp.expm1(log_plain(t)) / (1.0 - left(t))

    return _on_the_circle(alpha, lambda t: plain_dot(t) / (1.0 - left(t)), lacking)


def cosine() -> Path:
    """alpha = sin(pi t / 2), sigma = cos(pi t / 2): a quarter of a circle at even speed (SiT's GVP; Albergo et al.)."""
    quarter = 0.5 * jnp.pi  # rounded in float32, where its cosine is negative
    return Path(
        alpha=lambda t: jnp.sin(quarter * t),
        sigma=lambda t: jnp.sin(quarter * (1.0 - t)),
        alpha_dot=lambda t: quarter * jnp.sin(quarter * (1.0 - t)),
        sigma_dot=lambda t: -quarter * jnp.sin(quarter * t),
    )


def polynomial(power: float = 2.0) -> Path:
    """alpha = t^n, sigma = 1 - t^n: the straight line at a speed that grows (n > 1) or falls from noise to data."""
    return Path(
        alpha=lambda t: t**power,
        sigma=lambda t: 1.0 - t**power,
        alpha_dot=lambda t: power * t ** (power - 1.0),
        sigma_dot=lambda t: -power * t ** (power - 1.0),
    )


def align(t: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Append axes to t, [B] or [B, T], until it broadcasts against x, [B, T, ...]."""
    return jnp.expand_dims(t, tuple(range(t.ndim, x.ndim)))


def interpolate(
    path: Path, x1: Float[Array, "B ..."], x0: Float[Array, "B ..."], t: Float[Array, "B ..."]
) -> Float[Array, "B ..."]:
    """The state x_t between noise x0 and datum x1. `t` has shape [B], or [B, T] for a time per frame."""
    t = align(t, x1)
    return path.alpha(t) * x1 + path.sigma(t) * x0


def log_snr(path: Path, t: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(alpha / sigma), half the logarithm of the signal-to-noise ratio; infinite where one of them is 0."""
    return jnp.log(path.alpha(t)) - jnp.log(path.sigma(t))


def reverse(path: Path) -> Path:
    """The same path with time running the other way, data at 0 and noise at 1, as diffusers, SD3 and SiT count it."""
    return Path(
        alpha=lambda s: path.alpha(1.0 - s),
        sigma=lambda s: path.sigma(1.0 - s),
        alpha_dot=lambda s: -path.alpha_dot(1.0 - s),
        sigma_dot=lambda s: -path.sigma_dot(1.0 - s),
    )


def check(path: Path) -> None:
    """Raises UsageError: the path does not lead from noise to data, as with an argument that it was not meant for."""
    with jax.ensure_compile_time_eval():
        t = jnp.linspace(0.01, 0.99, 99)  # at the ends some paths have infinite velocities
        values = np.stack([np.broadcast_to(f(t), t.shape) for f in path])
    alpha, sigma = values[:2]
    falls = alpha[1:] * sigma[:-1] < alpha[:-1] * sigma[1:]  # the ratio of signal to noise
    led = not falls.any() and alpha[-1] * sigma[0] > alpha[0] * sigma[-1]
    if not np.isfinite(values).all() or values[:2].min() < 0.0 or not led:
        raise UsageError(
            "config.flow.path does not lead from noise at t = 0 to data at t = 1 by a finite alpha and sigma, neither "
            "of them negative: correct its arguments, or turn a path that runs the other way with paths.reverse."
        )


def _on_the_circle(alpha: Schedule, alpha_dot: Schedule, lacking: Schedule) -> Path:
    """The path with alpha^2 + sigma^2 = 1. `lacking` is 1 - alpha, of which near t = 1 rounding would leave nothing."""

    def sigma(t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.sqrt(lacking(t) * (1.0 + alpha(t)))

    return Path(alpha, sigma, alpha_dot, lambda t: -alpha(t) * alpha_dot(t) / sigma(t))
