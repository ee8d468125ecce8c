"""Guidance: steering the velocity towards a condition while sampling."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.flow.solvers import Velocity


def classifier_free(
    velocity: Callable[[Float[Array, "B ..."], Float[Array, ""], Any], Float[Array, "B ..."]],
    condition: Any,
    null: Any,
    scale: float,
) -> Velocity:
    """v = v_null + scale (v_condition - v_null), both in one call on a doubled batch (Ho and Salimans 2022, eq. 6).

    Args:
      velocity: the model, (x, t, condition) -> velocity.
      condition, null: pytrees whose leaves lead with the batch axis.
      scale: 1 is no guidance; then the null branch is not computed.
    """
    if scale == 1.0:
        return lambda x, t: velocity(x, t, condition)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), condition, null)

    def guided(x: Float[Array, "B ..."], t: Float[Array, ""]) -> Float[Array, "B ..."]:
        with_condition, without = jnp.split(velocity(jnp.concatenate([x, x]), t, both), 2)
        return without + scale * (with_condition - without)

    return guided
