"""Where clips come from: `config.data` -> a random-access source of {"video": uint8 [T, H, W, 3], "caption": str}."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from vidflow.data.folder import FolderSource, drawn_interval
from vidflow.data.pipeline import Source
from vidflow.errors import UsageError
from vidflow.worlds import bounce

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
        video, caption = bounce.clip(
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


def make_source(data: ConfigDict, *, seed: int, split: str = "train", manifest: Path | None = None) -> Source:
    """The source that `data.source` names, "bounce" or "folder". The test split of a folder is another folder,
    `data.test_path`, or where none is named the same. What a folder held when the run began is listed in `manifest`.

    Raises:
      UsageError: an unknown source, or a folder that FolderSource refuses.
    """
    if data.source == "bounce":
        return BounceSource(data, seed, split)
    if data.source == "folder":
        if not data.path:
            raise UsageError("config.data.source is 'folder' and config.data.path is empty: name a folder of videos.")
        clip = {"frames": data.frames, "height": data.height, "width": data.width, "fps": data.fps}
        how = {"max_interval": data.get("max_interval", 1), "max_bad": data.max_bad, "manifest": manifest}
        path = data.path if split == "train" else data.get("test_path", "") or data.path
        return FolderSource(Path(path), **clip, seed=seed, **how)
    raise UsageError(f"Unknown config.data.source '{data.source}': use 'bounce' or 'folder'.")


def is_held_out(data: ConfigDict) -> bool:
    """Whether the test split has no clip of the training split."""
    return data.source == "bounce" or bool(data.get("test_path", ""))


def clips_at_once(frames: int, height: int, width: int, most: int) -> int:
    """How many clips of that size, `most` or fewer, to give an autoencoder at a time: no more than `PIXELS`, or one."""
    return max(1, min(most, PIXELS // (frames * height * width)))


def to_float(video: UInt8[np.ndarray, "*B T H W 3"]) -> Float[np.ndarray, "*B T H W 3"]:
    """Bytes 0..255 -> float32 in [-1, 1]."""
    return video.astype(np.float32) / 127.5 - 1.0


def to_bytes(video: Float[np.ndarray, "*B T H W 3"]) -> UInt8[np.ndarray, "*B T H W 3"]:
    """Float in [-1, 1] (clipped) -> bytes, rounded to nearest."""
    return np.clip(np.round((np.asarray(video) + 1.0) * 127.5), 0, 255).astype(np.uint8)
