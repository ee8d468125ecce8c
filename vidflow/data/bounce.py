"""Clips of the bounce world as a source."""

from typing import Any

from ml_collections import ConfigDict

from vidflow.data.folder import drawn_interval
from vidflow.data.pipeline import Source
from vidflow.worlds import bounce as world


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
