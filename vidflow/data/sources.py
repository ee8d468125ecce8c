"""Where clips come from: `config.data` -> a random-access source of {"video": uint8 [T, H, W, 3], "caption": str}.

`data.source` names a function that makes one, of this module or, by its dotted name, of your own (docs/extending.md).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from vidflow.choices import choose
from vidflow.data.folder import FolderSource, drawn_interval
from vidflow.data.pipeline import Source
from vidflow.errors import UsageError
from vidflow.worlds import bounce as world

PIXELS = 2**24


class BounceSource:
    """The first `data.clips` clips of a split of the bounce world."""

    def __init__(self, data: ConfigDict, seed: int, split: str) -> None:
        self._data, self._seed, self._split = data, seed, split

    def __len__(self) -> int:
        return self._data.clips

    def __getitem__(self, index: int) -> dict[str, Any]:
        data = self._data
        interval = drawn_interval(self._seed, index, data.get("max_interval", 1))
        video, caption = world.clip(
            self._seed,
            index,
            level=data.level,
            split=self._split,
            frames=data.frames * interval,
            height=data.height,
            width=data.width,
            captions=data.captions,
            with_signs=data.get("signs", False),
        )
        return {"video": video[::interval], "caption": caption}


def bounce(data: ConfigDict, seed: int, split: str) -> Source:
    """The bounce world."""
    return BounceSource(data, seed, split)


def folder(data: ConfigDict, seed: int, split: str, manifest: Path | None) -> Source:
    """Video files under `data.path`. The test split is those under `data.test_path`, or where that is empty the same.

    What the folder held when the run began is listed in `manifest`.

    Raises:
      UsageError: no path, or a folder that FolderSource refuses.
    """
    if not data.path:
        raise UsageError("config.data.source is 'folder' and config.data.path is empty: name a folder of videos.")
    clip = {"frames": data.frames, "height": data.height, "width": data.width, "fps": data.fps}
    how = {"max_interval": data.get("max_interval", 1), "max_bad": data.max_bad, "manifest": manifest}
    path = data.path if split == "train" else data.get("test_path", "") or data.path
    return FolderSource(Path(path), **clip, seed=seed, **how)


def make_source(data: ConfigDict, *, seed: int, split: str = "train", manifest: Path | None = None) -> Source:
    """The source that `data.source` names; its function is given those of `data`, `seed`, `split` ("train" or "test")
    and `manifest` that it has parameters for.

    Raises:
      UsageError: an unknown source, what its function refuses, or a function of your own whose clips are not as above.
    """
    given = {"data": data, "seed": seed, "split": split, "manifest": manifest}
    source = choose(data.source, Source, sys.modules[__name__], where="config.data.source", **given)
    if "." in data.source:
        _check_clip(source, data)
    return source


def _check_clip(source: Source, data: ConfigDict) -> None:
    """Of the first clip, what training would only tell by a traceback."""
    clip, shape = source[0] if len(source) else {}, (data.frames, data.height, data.width, 3)
    video, caption = (clip.get(name) if isinstance(clip, dict) else None for name in ("video", "caption"))
    if not isinstance(video, np.ndarray) or (video.dtype, video.shape) != (np.uint8, shape) or type(caption) is not str:
        wanted = f"{{'video': uint8 {list(shape)}, 'caption': str}}"
        raise UsageError(
            f"The first clip of config.data.source={data.source} is not {wanted}: give clips of config.data.frames, "
            "height and width, or set these."
        )


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
    """Float in [-1, 1] (clipped) -> bytes, rounded to nearest."""
    return np.clip(np.round((np.asarray(video) + 1.0) * 127.5), 0, 255).astype(np.uint8)
