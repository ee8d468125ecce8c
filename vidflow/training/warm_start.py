"""Starting a run from the weights of another one."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils

from vidflow.autoencoders import pretrained
from vidflow.errors import UsageError
from vidflow.models.growing import grow
from vidflow.parallel import rules
from vidflow.training import weights
from vidflow.training.checkpoint import restore_ema
from vidflow.training.state import State


def averaged_weights(run: Path, step: int | None = None, best: str = "") -> tuple[Any, int]:
    """The averaged parameters of a run folder as NumPy arrays, and the number of steps in them.

    From the checkpoint of `step`, or the one with the lowest metric `best`, or the newest; a folder without
    checkpoints, as a finished run that was exported, has its weights alone.

    Raises:
      UsageError: the folder holds no such checkpoint, or no weights.
    """
    if (run / "checkpoints").is_dir():
        return restore_ema(run / "checkpoints", step, best)
    if step is not None or best:
        raise UsageError(f"{run} holds no checkpoints to choose from: leave --step out, or name a run that has them.")
    params, metadata = weights.load(run / "weights.safetensors")
    return params, int(metadata.get("steps", 0))


def start_from(path: Path, state: State, patch_volume: int) -> State:
    """The fresh `state` with the averaged weights of a run folder or of a safetensors file, grown where this model
    is larger (`models.growing`), or of an autoencoder that diffusers saved, as parameters and average.

    Raises:
      UsageError: no weights there, or weights of another model, naming the first difference.
    """
    if pretrained.is_published(path):
        return _inflated(path, state)
    grown = _grown(path, state.params, patch_volume, read=partial(multihost_utils.process_allgather, tiled=True))
    return state.replace(
        params=jax.tree.map(_placed, grown, state.params), ema=jax.tree.map(_placed, grown, state.ema)
    )


def check(path: Path, init: Callable[[jax.Array], Any], patch_volume: int) -> None:
    """Raises UsageError: what `start_from` would refuse, before anything is made for a run."""
    like = rules.unbox(jax.eval_shape(init, jax.random.key(0)))
    if pretrained.is_published(path):
        pretrained.read(path, like["params"])
    else:
        _grown(path, like, patch_volume, read=lambda leaf: np.zeros(leaf.shape, leaf.dtype))


def _grown(path: Path, like: Any, patch_volume: int, read: Callable[[Any], np.ndarray]) -> Any:
    saved = weights.load(path)[0] if path.is_file() else averaged_weights(path)[0]
    try:
        return grow(saved, like, patch_volume, read)
    except ValueError as difference:
        raise UsageError(
            f"config.init_from={path} is of another model ({difference}): use weights of the same widths and layers."
        ) from None


def _inflated(path: Path, state: State) -> State:
    """The fresh state with the weights that others published where they have a place: an image autoencoder's in the
    spatial layers of a temporal one."""
    theirs = pretrained.read(path, state.params["params"])

    def with_theirs(tree: Any) -> Any:
        flat = traverse_util.flatten_dict(tree["params"], sep="/")
        flat |= {name: _placed(value, flat[name]) for name, value in theirs.items()}
        return {**tree, "params": traverse_util.unflatten_dict(flat, sep="/")}

    return state.replace(params=with_theirs(state.params), ema=with_theirs(state.ema))


def _placed(value: np.ndarray, like: jax.Array) -> jax.Array:
    """The value where and as `like` is; every process makes the parts that its devices hold."""
    value = np.asarray(value, like.dtype)
    return jax.make_array_from_callback(like.shape, like.sharding, lambda part: value[part])


def mean(trees: Iterable[Any]) -> Any:
    """The mean of one or more parameter trees of equal shapes, added up in float64, one after the other."""
    total, count = None, 0
    for tree in trees:
        dtypes = jax.tree.map(lambda leaf: leaf.dtype, tree)
        if total is None:
            total = jax.tree.map(lambda leaf: leaf.astype(np.float64), tree)
        else:
            jax.tree.map(lambda sum_, leaf: np.add(sum_, leaf, out=sum_), total, tree)
        count += 1
    return jax.tree.map(lambda sum_, dtype: (sum_ / count).astype(dtype), total, dtypes)
