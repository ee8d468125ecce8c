"""The parameters of a text encoder from tensors of PyTorch's layout, each read when it is placed."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from vidflow.errors import UsageError
from vidflow.text.tensors import Tensors

Index = tuple[slice, ...]
Change = tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray]]


def read(
    like: Any,
    names: Mapping[str, str],
    weights: Tensors,
    dtype: Any,
    shardings: Any = None,
    changes: Mapping[str, Change] | None = None,
) -> Any:
    """The tree `like`, of shapes, filled. Of a stack of layers a parameter has one tensor for each.

    Args:
      like: abstract and boxed, as `jax.eval_shape` of a module's `init` gives it.
      names: of a parameter -> that of its tensor, with "{}" for the number of a layer.
      weights: the tensors.
      dtype: of the parameters.
      shardings: a tree of them as `like`; None: the first device.
      changes: of a parameter -> the shape of its tensor, if that is another, and what is done to it.

    Raises:
      UsageError: a tensor that is missing, left over or of another shape; names the first.
    """
    places = {} if shardings is None else _flat(shardings)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    flat, left = {}, set(weights.shapes)
    for ours, leaf in _flat(nn.unbox(like)).items():
        place = ours.removeprefix("params/")
        layers = leaf.shape[0] if "{}" in names[place] else 0
        stack = [names[place].format(layer) for layer in range(layers)] or [names[place]]
        one = _reader(weights, place, stack, leaf.shape[bool(layers) :], (changes or {}).get(place))
        left -= set(stack)
        part = partial(_stacked if layers else _alone, one, stack, dtype)
        flat[ours] = jax.make_array_from_callback(leaf.shape, places.get(ours, here), part)
    if left:
        raise UsageError(f"The weights at {weights.folder} hold '{min(left)}', for which there is no place.")
    return traverse_util.unflatten_dict(flat, sep="/")


def _reader(
    weights: Tensors, place: str, stack: list[str], shape: tuple[int, ...], change: Change | None
) -> Callable[[str, Index], np.ndarray]:
    """(name, index into a parameter of that shape) -> that part of it."""
    turned = place.endswith("kernel")  # features of the result come first there
    for name in stack:
        if name not in weights.shapes:
            raise UsageError(f"The weights at {weights.folder} have no tensor '{name}', which config.json asks for.")
        found, asked = weights.shapes[name], change[0] if change else shape[::-1] if turned else shape
        if found != asked:
            raise UsageError(
                f"The weights at {weights.folder} are of another layout: '{name}' is {found} and config.json asks for "
                f"{asked}."
            )

    def one(name: str, index: Index) -> np.ndarray:
        if change is not None:
            return change[1](weights.read(name).astype(np.float32))[index]
        return weights.read(name, index[::-1]).T if turned else weights.read(name, index)

    return one


def _alone(one: Callable[[str, Index], np.ndarray], stack: list[str], dtype: Any, index: Index) -> np.ndarray:
    return one(stack[0], index).astype(dtype, copy=False)


def _stacked(one: Callable[[str, Index], np.ndarray], stack: list[str], dtype: Any, index: Index) -> np.ndarray:
    layers = stack[index[0]]
    first = one(layers[0], index[1:])
    whole = np.empty((len(layers), *first.shape), dtype)
    whole[0] = first
    for layer, name in enumerate(layers[1:], 1):
        whole[layer] = one(name, index[1:])
    return whole


def _flat(tree: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")
