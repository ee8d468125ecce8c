"""Logical axis names to mesh axes: the only place that knows both."""

from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vidflow.errors import UsageError


def _table(embed: str | tuple[str, ...] | None) -> tuple[tuple[str, Any], ...]:
    """Parameters first, activations last. Every name a module uses must stand here: an unknown one is an error."""
    return (
        ("layers", None),
        ("embed", embed),
        ("heads", "tensor"),
        ("mlp", "tensor"),
        ("modulation", "tensor"),
        ("features", None),
        ("latent", None),
        ("position", None),
        ("vocab", None),
        ("batch", ("data", "fsdp")),
        ("tokens", ("sequence", "tensor")),
    )


# By the name that `config.rules` gives: the devices over which a parameter, its moments and its average lie in parts.
# "everywhere" needs least memory; "fsdp" gathers and scatters less where a clip has several devices; "replicated" is
# for small models, whose parameters each device keeps whole but for `tensor`.
TABLES = {"everywhere": _table(("fsdp", "sequence")), "fsdp": _table("fsdp"), "replicated": _table(None)}
DEFAULT = "everywhere"


def axis_names(boxed: Any) -> Any:
    """The logical axis names of each annotated parameter, as a tree of `PartitionSpec`."""
    return nn.get_partition_spec(boxed)


def shardings(boxed: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of an annotated (real or abstract) tree; same structure as `unbox(boxed)`.

    Leaves outside a box, such as an optimizer's counters, are replicated. The table is that in force, or the default.

    Raises:
      ValueError: an annotation with a name that the table lacks; left alone it would be silently unsharded.
      UsageError: a leaf that the mesh does not divide.
    """
    rules = tuple(nn.get_logical_axis_rules()) or TABLES[DEFAULT]
    known = {name for name, _ in rules}

    def sharding(node: Any) -> Any:
        if not is_box(node):
            return NamedSharding(mesh, P())
        for name in filter(None, node.names):
            if name not in known:
                raise ValueError(f"The logical axis '{name}' has no rule; known: {sorted(known)}.")
        place = nn.logical_to_mesh_sharding(node.get_partition_spec(), mesh, rules)
        return jax.tree.map(lambda leaf: _dividing(place, leaf), node.value)  # an optimizer may have masked it away

    return jax.tree.map(sharding, boxed, is_leaf=is_box)


def _dividing(place: NamedSharding, leaf: Any) -> NamedSharding:
    try:
        place.shard_shape(leaf.shape)
    except ValueError:
        sizes = ", ".join(f"{axis}={size}" for axis, size in place.mesh.shape.items())
        raise UsageError(
            f"A parameter of shape {leaf.shape} does not divide over the mesh ({sizes}) by {place.spec}: choose a mesh "
            "that does."
        ) from None
    return place


def is_box(node: Any) -> bool:
    """Whether this node of a tree carries logical axis names."""
    return isinstance(node, nn.LogicallyPartitioned)


def unbox(boxed: Any) -> Any:
    """The bare arrays of an annotated tree; unlike `flax.linen.unbox` it also works on abstract trees under a mesh."""
    return jax.tree.map(lambda n: n.unbox(apply_constraint=False) if is_box(n) else n, boxed, is_leaf=is_box)


def in_force(table: str = DEFAULT) -> AbstractContextManager[None]:
    """While entered (before the first trace), parameters and activations follow that table.

    Raises:
      UsageError: a name that `TABLES` lacks.
    """
    return nn.logical_axis_rules(_of(table))


def spread(table: str) -> tuple[str, ...]:
    """The axes of the mesh, beside `tensor`, over which that table lays a parameter in parts.

    Raises:
      UsageError: a name that `TABLES` lacks.
    """
    axes = dict(_of(table))["embed"]
    return () if axes is None else (axes,) if isinstance(axes, str) else axes


def _of(table: str) -> tuple[tuple[str, Any], ...]:
    if table not in TABLES:
        raise UsageError(f"Unknown config.rules '{table}': use one of {', '.join(TABLES)}.")
    return TABLES[table]
