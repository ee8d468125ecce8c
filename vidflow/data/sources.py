"""Where clips come from: `config.data` -> a random-access source of {"video": uint8 [T, H, W, 3], "caption": str}.

`data.source` names a function that makes one, of data/bounce.py or data/folder.py or, by its dotted name, of your own
(docs/extending.md).
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from vidflow.choices import choose
from vidflow.data import bounce, folder
from vidflow.data.pipeline import Source
from vidflow.errors import UsageError

PIXELS = 2**24


def make_source(data: ConfigDict, *, seed: int, split: str = "train", manifest: Path | None = None) -> Source:
    """The source that `data.source` names; its function is given those of `data`, `seed`, `split` ("train" or "test")
    and `manifest` that it has parameters for.

    Raises:
      UsageError: an unknown source, what its function refuses, or a function of your own whose clips are not as above.
    """
    given = {"data": data, "seed": seed, "split": split, "manifest": manifest}
    source = choose(data.source, Source, bounce, folder, where="config.data.source", **given)
    if "." not in data.source:
        return source
    checked = _Checked(source, data)
    checked[0]  # before a run begins
    return checked


class _Checked:
    """A source of your own; of each clip it looks at what others would only tell by a traceback."""

    def __init__(self, source: Source, data: ConfigDict) -> None:
        self._source, self._name = source, data.source
        self._shape = data.frames, data.height, data.width, 3

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = self._source[index] if len(self) else {}
        video, caption = (clip.get(name) if isinstance(clip, dict) else None for name in ("video", "caption"))
        fits = isinstance(video, np.ndarray) and (video.dtype, video.shape) == (np.uint8, self._shape)
        if not fits or not isinstance(caption, str):
            wanted = f"{{'video': uint8 {list(self._shape)}, 'caption': str}}"
            raise UsageError(
                f"Clip {index} of config.data.source={self._name} is not {wanted}: give clips of config.data.frames, "
                "height and width, or set these."
            )
        return clip


def is_held_out(data: ConfigDict) -> bool:
    """Whether the test split has no clip of the training split: a function of your own is trusted with that."""
    return data.source != "folder" or bool(data.get("test_path", ""))


def clips_at_once(frames: int, height: int, width: int, most: int) -> int:
    """How many clips of that size, `most` or fewer, to give an autoencoder at a time: no more than `PIXELS`, or one."""
    return max(1, min(most, PIXELS // (frames * height * width)))


def to_float(video: UInt8[np.ndarray, "*B T H W 3"]) -> Float[np.ndarray, "*B T H W 3"]:
    """Bytes 0..255 -> float32 in [-1, 1]."""
    return video.astype(np.float32) / 127.5 - 1.0


def to_bytes(video: Float[np.ndarray, "*B T H W 3"]) -> UInt8[np.ndarray, "*B T H W 3"]:
    """Float in [-1, 1] (clipped) -> bytes, rounded to nearest.

    Raises:
      UsageError: a pixel that is not a number, which would become a black one.
    """
    levels = np.clip(np.round((np.asarray(video) + 1.0) * 127.5), 0, 255)
    if np.isnan(levels).any():
        raise UsageError("An autoencoder gave pixels that are not numbers: take a wider dtype, or other weights.")
    return levels.astype(np.uint8)
