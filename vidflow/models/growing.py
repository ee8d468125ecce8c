"""Weights of one model as the start of a larger one: longer videos, larger frames, more input channels."""

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import traverse_util
from jaxtyping import Float

# Position tables by the ends of their names. Rows along height and width stand for places in the frame, which finer
# frames divide; rows along time and in a text stand for counts, which longer inputs continue.
STRETCHED = (("positions", "height"), ("positions", "width"))
CONTINUED = (("positions", "time"), ("text", "position"))
WIDENED = ("patch", "kernel")


def grow(saved: Any, fresh: Any, patch_volume: int, read: Callable[[Any], np.ndarray] = np.asarray) -> Any:
    """The tree `saved` in the shapes of the tree `fresh`, whose values stand where nothing was learnt.

    As between Movie Gen's stages (section 3.3): tables of height and width are stretched. A table of time of one row,
    which is that of an image model, is left fresh; a longer one keeps its rows and has fresh ones behind them. A
    patch layer that sees more channels has zeros for them, so that the larger model starts out as the smaller one.

    Args:
      saved, fresh: trees of arrays.
      patch_volume: latents in a patch; the features of a patch are `patch_volume` times the channels.
      read: brings an array of `fresh` here; called for those alone whose values are needed.

    Raises:
      ValueError: an array that is missing, or of another shape that none of this explains; names it.
    """
    old, new = (traverse_util.flatten_dict(tree, sep="/") for tree in (saved, fresh))
    grown = {}
    for name in sorted(old.keys() | new.keys()):
        before, after = (tree[name].shape if name in tree else None for tree in (old, new))
        end = tuple(name.split("/")[-2:])
        if before == after:
            grown[name] = old[name]
        elif not _is_longer(before, after):
            raise ValueError(f"'{name}' is {before or 'absent'} there and {after or 'absent'} in this model")
        elif end in STRETCHED:
            grown[name] = stretch(np.asarray(old[name]), after[0])
        elif end in CONTINUED:
            values = read(new[name])
            grown[name] = values if before[0] == 1 else np.concatenate([old[name], values[before[0] :]])
        elif end == WIDENED and before[0] % patch_volume == after[0] % patch_volume == 0:
            grown[name] = widen(np.asarray(old[name]), after[0], patch_volume)
        else:
            raise ValueError(f"'{name}' is {before} there and {after} in this model")
    return traverse_util.unflatten_dict(grown, sep="/")


def _is_longer(before: tuple[int, ...] | None, after: tuple[int, ...] | None) -> bool:
    """Whether both are matrices of the same width, and the new one has more rows."""
    both = before is not None and after is not None and len(before) == len(after) == 2
    return both and before[1] == after[1] and before[0] < after[0]


def stretch(table: Float[np.ndarray, "rows D"], rows: int) -> Float[np.ndarray, "longer D"]:
    """A position table over the same extent with more rows, linear between the centres of the old ones."""
    places = (np.arange(rows) + 0.5) * len(table) / rows - 0.5
    below = np.clip(np.floor(places).astype(int), 0, len(table) - 1)
    above, share = np.minimum(below + 1, len(table) - 1), np.clip(places - below, 0, 1)[:, None]
    return ((1 - share) * table[below] + share * table[above]).astype(table.dtype)


def widen(kernel: Float[np.ndarray, "features D"], features: int, patch_volume: int) -> Float[np.ndarray, "more D"]:
    """A patch layer for more channels, which come after the old ones and have zeros."""
    by_channel = kernel.reshape(patch_volume, -1, kernel.shape[1])
    missing = features // patch_volume - by_channel.shape[1]
    return np.pad(by_channel, ((0, 0), (0, missing), (0, 0))).reshape(features, -1)
