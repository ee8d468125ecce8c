"""The state of a run: everything that the next step depends on besides the config."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vidflow.parallel import rules


@flax.struct.dataclass
class State:
    """Parameters, optimizer state, their moving average, and the number of steps taken. No random key: keys follow
    from the step.

    Attributes:
      params, opt_state, ema: trees of float32 arrays.
      step: int32 scalar.
    """

    params: Any
    opt_state: Any
    ema: Any
    step: Any


def initialise(
    init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, key: jax.Array, mesh: Mesh
) -> State:
    """A fresh state, every leaf created where `shardings` puts it; `init(key)` gives annotated parameters."""

    def create(key: jax.Array) -> State:
        params = rules.unbox(init(key))
        return State(params, optimizer.init(params), jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32))

    return jax.jit(create, out_shardings=_shardings(init, optimizer, mesh))(key)


def abstract(init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, mesh: Mesh) -> State:
    """The shape, dtype and sharding of every leaf, computed without making any."""
    params = rules.unbox(jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0))))
    shapes = State(params, jax.eval_shape(optimizer.init, params), params, jax.ShapeDtypeStruct((), jnp.int32))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        _shardings(init, optimizer, mesh),
    )


def _shardings(init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, mesh: Mesh) -> State:
    """Where each leaf lives: moments and average like their parameter, counters everywhere."""
    boxed = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))
    params = rules.shardings(boxed, mesh)
    opt_state = rules.shardings(jax.eval_shape(optimizer.init, boxed), mesh)
    return State(params, opt_state, params, NamedSharding(mesh, P()))
