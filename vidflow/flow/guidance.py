"""Guidance: steering the velocity towards a condition while sampling.

Everything here takes the model as (x, t, condition) -> velocity, with conditions as pytrees whose leaves lead with the
batch axis, and makes the field (x, t) -> velocity that a solver integrates. Its branches are rows of one call.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vidflow.errors import UsageError
from vidflow.flow.solvers import Times, Velocity

Model = Callable[[Float[Array, "B ..."], Float[Array, ""], Any], Float[Array, "B ..."]]
ROUNDING = 1e-2  # of a step, by which the time that a solver has added up may lack to the next
Scale = float | Callable[[Float[Array, ""]], Float[Array, ""]]


def classifier_free(model: Model, condition: Any, null: Any, scale: Scale, rescale: float = 0.0) -> Velocity:
    """v = v_null + scale (v_condition - v_null) (Ho and Salimans 2022, eq. 6).

    Args:
      null: the empty prompt, or a negative one, away from which it then leads.
      scale: 1 is no guidance; then the null branch is not computed. A function of t where it is not the same throughout
        (`interval`, `oscillating`).
      rescale: how much, from 0 to 1, of the growth in deviation that guidance brings is taken back in each row (Lin et
        al. 2024, eq. 15 and 16).
    """

    def alone(x: Float[Array, "B ..."], t: Float[Array, ""]) -> Float[Array, "B ..."]:
        return model(x, t, condition)

    def guided(x: Float[Array, "B ..."], t: Float[Array, ""], scale: Any) -> Float[Array, "B ..."]:
        towards, without = _branches(model, x, t, (condition, null))
        return _rescaled(without + scale * (towards - without), towards, rescale)

    if callable(scale):
        return lambda x, t: jax.lax.cond(scale(t) == 1.0, alone, lambda x, t: guided(x, t, scale(t)), x, t)
    return alone if scale == 1.0 else lambda x, t: guided(x, t, scale)


def two_conditions(
    model: Model, both: Any, second_only: Any, null: Any, first_scale: float, second_scale: float
) -> Velocity:
    """v = v_null + second (v_second - v_null) + first (v_both - v_second): text and an image, say, each with a scale of
    its own (Brooks et al. 2023, eq. 3)."""

    def field(x: Float[Array, "B ..."], t: Float[Array, ""]) -> Float[Array, "B ..."]:
        v_both, v_second, v_null = _branches(model, x, t, (both, second_only, null))
        return v_null + second_scale * (v_second - v_null) + first_scale * (v_both - v_second)

    return field


def constant(scale: float) -> Scale:
    """The same at every time."""
    return scale


def interval(scale: float, low: float = 0.1, high: float = 0.9) -> Scale:
    """`scale` for low <= t <= high, 1 and half the cost elsewhere (Kynkaanniemi et al. 2024).

    Raises:
      UsageError: low > high, between which there is nothing, or times beyond 0 and 1.
    """
    if not 0.0 <= low <= high <= 1.0:
        raise UsageError(
            f"Guidance from t = {low:g} to {high:g} is none: times are from 0 (noise) to 1 (data); correct "
            "config.sampling.guidance_shape."
        )
    return lambda t: jnp.where((low <= t) & (t <= high), scale, 1.0)


def oscillating(scale: float, times: Times, other: float = 1.0, first: int = 0) -> Scale:
    """`scale` and `other` by turns from step `first` on, as Open-Sora 2.0 does with its image guidance: each from one
    of the `times` up to the next."""
    times = np.asarray(times)
    starts = jnp.asarray(times[1:-1] - ROUNDING * np.diff(times)[:-1], jnp.float32)

    def at(t: Float[Array, ""]) -> Float[Array, ""]:
        step = jnp.searchsorted(starts, t.astype(jnp.float32), side="right")
        return jnp.where((step >= first) & ((step - first) % 2 == 1), other, scale)

    return at


def _branches(model: Model, x: Array, t: Array, conditions: tuple[Any, ...]) -> list[Array]:
    """The velocity under each condition, in one call on a batch as many times as large."""
    every = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *conditions)
    return jnp.split(model(jnp.concatenate(len(conditions) * [x]), t, every), len(conditions))


def _rescaled(guided: Array, towards: Array, share: float) -> Array:
    if not share:
        return guided
    axes = tuple(range(1, guided.ndim))
    before, after = (x.std(axis=axes, keepdims=True) for x in (towards, guided))
    ratio = jnp.where(after > 0.0, before / after, 1.0)  # a new model says 0 everywhere
    return guided * (share * ratio + 1.0 - share)
