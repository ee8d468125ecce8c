"""Logical axis names to mesh axes: the only place that knows both."""

from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

# Parameters first, activations last. Every name a module uses must stand here: an unknown one is an error.
RULES = (
    ("layers", None),
    ("embed", ("fsdp", "sequence")),
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


def axis_names(boxed: Any) -> Any:
    """The logical axis names of each annotated parameter, as a tree of `PartitionSpec`."""
    return nn.get_partition_spec(boxed)


def shardings(boxed: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of an annotated (real or abstract) tree; same structure as `unbox(boxed)`.

    Leaves outside a box, such as an optimizer's counters, are replicated.

    Raises:
      ValueError: an annotation with a name that `RULES` lacks; left alone it would be silently unsharded.
    """
    known = {name for name, _ in RULES}

    def sharding(node: Any) -> Any:
        if not is_box(node):
            return NamedSharding(mesh, P())
        for name in filter(None, node.names):
            if name not in known:
                raise ValueError(f"The logical axis '{name}' has no rule; known: {sorted(known)}.")
        place = nn.logical_to_mesh_sharding(node.get_partition_spec(), mesh, RULES)
        return jax.tree.map(lambda _: place, node.value)  # an optimizer may have masked the leaf away

    return jax.tree.map(sharding, boxed, is_leaf=is_box)


def is_box(node: Any) -> bool:
    """Whether this node of a tree carries logical axis names."""
    return isinstance(node, nn.LogicallyPartitioned)


def unbox(boxed: Any) -> Any:
    """The bare arrays of an annotated tree; unlike `flax.linen.unbox` it also works on abstract trees under a mesh."""
    return jax.tree.map(lambda n: n.unbox(apply_constraint=False) if is_box(n) else n, boxed, is_leaf=is_box)


def in_force() -> AbstractContextManager[None]:
    """While entered (before the first trace), activations' logical constraints follow `RULES`."""
    return nn.logical_axis_rules(RULES)
