"""The state of a run: everything that the next step depends on besides the config."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vidflow.errors import UsageError
from vidflow.parallel import rules
from vidflow.training import health


@flax.struct.dataclass
class State:
    """Parameters, optimizer state, their moving average, and the number of steps taken. No random key: keys follow
    from the step.

    Attributes:
      params, opt_state, ema: trees of float32 arrays.
      health: statistics of loss and gradient, `training.health.Health`.
      step: int32 scalar; skipped steps count, since the data move on.
    """

    params: Any
    opt_state: Any
    ema: Any
    health: Any
    step: Any


def fresh(params: Any, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step."""
    ema = jax.tree.map(jnp.copy, params)
    return State(params, optimizer.init(params), ema, health.fresh(), jnp.zeros((), jnp.int32))


def initialise(
    init: Callable[[jax.Array], Any],
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    mesh: Mesh,
    on_host: Sequence[str] = (),
) -> State:
    """A fresh state, every leaf created where `shardings` puts it; `init(key)` gives annotated parameters."""

    def create(key: jax.Array) -> State:
        return fresh(rules.unbox(init(key)), optimizer)

    place = shardings(init, optimizer, mesh)
    state = jax.jit(create, out_shardings=place)(key)
    return jax.device_put(state, put_on_host(place, on_host)) if on_host else state


def abstract(
    init: Callable[[jax.Array], Any],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    on_host: Sequence[str] = (),
) -> State:
    """The shape, dtype and sharding of every leaf, computed without making any."""
    params = rules.unbox(jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0))))
    shapes = jax.eval_shape(lambda params: fresh(params, optimizer), params)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        put_on_host(shardings(init, optimizer, mesh), on_host),
    )


def shardings(init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, mesh: Mesh) -> State:
    """Where each leaf lives: moments and average like their parameter, counters everywhere."""
    boxed = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))
    params = rules.shardings(boxed, mesh)
    opt_state = rules.shardings(jax.eval_shape(optimizer.init, boxed), mesh)
    everywhere = NamedSharding(mesh, P())
    counters = jax.tree.map(lambda _: everywhere, jax.eval_shape(health.fresh))
    return State(params, opt_state, params, counters, everywhere)


def put_on_host(places: State, names: Sequence[str]) -> State:
    """The same places, but in the memory of the hosts for the parts of the state so named: `ema`, or a field of
    the optimizer's state such as the moments `mu` and `nu`.

    Raises:
      UsageError: a name that no part of the state has.
    """
    found = set()

    def place(path: tuple[Any, ...], sharding: NamedSharding) -> NamedSharding:
        here = {getattr(key, "name", None) for key in path} & set(names)
        found.update(here)
        return sharding.with_memory_kind("pinned_host") if here else sharding

    placed = jax.tree_util.tree_map_with_path(place, places)
    if missing := sorted(set(names) - found):
        raise UsageError(f"config.host_memory names '{missing[0]}', which the state does not have: use ema, mu or nu.")
    return placed
