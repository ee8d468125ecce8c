"""Digests of arrays that do not depend on how they are spread over devices: what a checkpoint is checked against."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


@jax.jit
def _digests(tree: Any) -> Any:
    return jax.tree.map(_digest, tree)


def of_tree(tree: Any) -> dict[str, int]:
    """Path of each leaf -> its digest."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(arrays(tree)))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): int(value) for path, value in leaves}


def arrays(tree: Any) -> Any:
    """The digest of each leaf in its place, a uint32 scalar on the device.

    The sum over elements of mixed(their bits) x (an odd number that grows with their position), modulo 2^32. Whole
    numbers add up to the same in any order, so meshes do not matter. Mixing is one-to-one and the factor odd, so one
    changed element always changes the sum; many changed ones go unnoticed with a chance of 2^-32.
    """
    return _digests(jax.tree.map(_in_device_memory, tree))


def _digest(leaf: jax.Array) -> jax.Array:
    words = jax.lax.bitcast_convert_type(leaf, WORDS[leaf.dtype.itemsize]).astype(jnp.uint32)
    position, size = jnp.zeros(leaf.shape, jnp.uint32), np.uint32(1)
    for axis in reversed(range(leaf.ndim)):
        position += size * jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        size = np.uint32((int(size) * leaf.shape[axis]) % 2**32)
    return (mixed(words) * (2 * position + 1)).sum(dtype=jnp.uint32)


def mixed(words: jax.Array) -> jax.Array:
    """A one-to-one map of uint32. Without it an even number of flipped signs, 2^31 each, would add up to nothing."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * jnp.uint32(0x846CA68B)
    return words ^ (words >> 16)


def _in_device_memory(leaf: jax.Array) -> jax.Array:
    """The leaf itself, or a copy of one that rests in the memory of a host."""
    kind = leaf.sharding.memory_kind
    return jax.device_put(leaf, leaf.sharding.with_memory_kind("device")) if kind == "pinned_host" else leaf
