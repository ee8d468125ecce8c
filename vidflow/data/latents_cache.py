"""A cache of encoded clips: latents and captions on disk, written once by `vidflow encode`, read at random.

    recipe.json            what it is made from, how many clips and how many of them a part has
    part-00000.safetensors latents [n, t, h, w, c] float16, normalised, and beside it in part-00000.json the captions
    latents.json           as recipe.json; written last, so its presence means "whole"

Parts are written whole or not at all (`data.parts`), so an interrupted encode goes on with the first missing part, and
several processes can each write a share of them.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vidflow import files
from vidflow.data import parts
from vidflow.data.parts import Part
from vidflow.errors import UsageError

Encoded = tuple[Float[np.ndarray, "n t h w c"], Sequence[str]]


class Share(NamedTuple):
    """Every `of`-th part, from number `index` on, counted from 0."""

    index: int = 0
    of: int = 1


ALL = Share()


def parse_share(text: str) -> Share:
    """From "2/8", counted from 1.

    Raises:
      UsageError: other words, or no such share.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"'{text}' is no share: the second of eight is --share=2/8.")
    return Share(int(found[1]) - 1, int(found[2]))


class Layout(NamedTuple):
    """How many clips there are, and how many each part has."""

    clips: int
    clips_per_part: int

    @classmethod
    def of(cls, clips: int, latent_shape: tuple[int, ...]) -> "Layout":
        """For latents of that shape."""
        return cls(clips, parts.slices_per_part(int(np.prod(latent_shape)) * np.dtype(np.float16).itemsize))

    def parts(self, share: Share = ALL) -> dict[int, range]:
        """The numbers of the parts of a share, and the clips of each."""
        numbers = range(share.index, -(-self.clips // self.clips_per_part), share.of)
        return {n: range(n * self.clips_per_part, min((n + 1) * self.clips_per_part, self.clips)) for n in numbers}


def begin(folder: Path, recipe: dict[str, Any], layout: Layout) -> Layout:
    """Says what the folder is for; the layout is that with which the cache was begun, if it was.

    Args:
      folder: of the cache; made if absent.
      recipe: what the latents depend on (data, autoencoder digest), JSON values.
      layout: of a new one.

    Raises:
      UsageError: the folder holds a cache, or the start of one, of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun = folder / "recipe.json"
    if not begun.exists():
        files.write_record(begun, {"recipe": recipe, **layout._asdict()})
    record = files.read_record(begun)
    if record.get("recipe") != json.loads(json.dumps(recipe)) or record["clips"] != layout.clips:
        raise UsageError(f"{folder} holds latents of other data or another autoencoder: use another folder.")
    return _layout(record)


def write(folder: Path, encode: Callable[[range], Encoded], share: Share = ALL) -> Iterator[int]:
    """Writes the missing parts of a cache that was begun, or a share of them, and yields the number of clips of each.

    The cache is whole when every part is: whichever process sees that at its end says so.

    Args:
      folder: of the cache.
      encode: latents and captions of a range of clip indices.
      share: of the parts, which this process writes; others write the rest into the same folder.

    Raises:
      UsageError: latents that are no numbers or too large for float16, naming the first clip; or no room.
    """
    record = files.read_record(folder / "recipe.json")
    layout = _layout(record)
    for number, clips in layout.parts(share).items():
        if parts.card(_path(folder, number)) is None:
            latents, captions = encode(clips)
            ends = range(1, len(clips) + 1)
            parts.write(_path(folder, number), _halved(latents, clips), ends, {"captions": list(captions)})
        yield len(clips)
    if all(parts.card(_path(folder, number)) for number in layout.parts().keys() - layout.parts(share).keys()):
        files.write_record(folder / "latents.json", record)


def _halved(latents: Float[np.ndarray, "n t h w c"], clips: range) -> Float[np.ndarray, "n t h w c"]:
    with np.errstate(over="ignore"):
        halved = latents.astype(np.float16)
    finite = np.isfinite(halved).all(axis=(1, 2, 3, 4))
    if not finite.all():
        first = int(np.argmin(finite))
        raise UsageError(
            f"{np.sum(~finite)} of clips {clips.start} to {clips.stop - 1} have latents that float16 cannot hold, "
            f"first clip {clips[first]} (up to {np.abs(latents[first]).max():g}): use an autoencoder that was trained "
            "for longer, or in float32."
        )
    return halved


def is_whole(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether the folder holds the finished cache of this recipe, as long as it should be."""
    try:
        record = files.read_record(folder / "latents.json")
        numbers = _layout(record).parts()
    except (FileNotFoundError, UsageError):
        return False
    whole = all(parts.card(_path(folder, number)) for number in numbers)
    return whole and record["recipe"] == json.loads(json.dumps(recipe))


def captions(folder: Path, share: Share = ALL) -> list[str]:
    """Those of a share of the parts, which are there."""
    layout = _layout(files.read_record(folder / "recipe.json"))
    cards = (parts.card(_path(folder, number)) for number in layout.parts(share))
    return [caption for card in cards if card for caption in card["captions"]]


class LatentsSource:
    """The examples of a whole cache: {"latents": float32 [t, h, w, c], "caption": str}.

    Raises:
      UsageError: no whole cache in the folder, or a part that is missing or cut short; and, when an example is read,
        one that was altered.
    """

    def __init__(self, folder: Path) -> None:
        try:
            record = files.read_record(folder / "latents.json")
        except FileNotFoundError:
            raise UsageError(
                f"{folder} holds no whole cache of latents (no latents.json there): run vidflow encode."
            ) from None
        self.recipe = record["recipe"]
        self._captions: list[str] = []
        self._parts: list[Part] = []
        self._layout = _layout(record)
        for number in self._layout.parts():
            card = parts.card(_path(folder, number))
            if card is None:
                raise UsageError(f"Part {number} of {folder} is missing or damaged: run vidflow encode again.")
            self.latent_shape = tuple(card["shape"])
            self._captions += card["captions"]
            self._parts.append(Part(_path(folder, number), card))
        if len(self._captions) != self._layout.clips:
            raise UsageError(f"{folder} lacks some of its {self._layout.clips} clips: run vidflow encode again.")

    @property
    def captions(self) -> Sequence[str]:
        return self._captions

    def __len__(self) -> int:
        return len(self._captions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, place = divmod(index, self._layout.clips_per_part)
        return {"latents": self._parts[part][place][0].astype(np.float32), "caption": self._captions[index]}


def _layout(record: dict[str, Any]) -> Layout:
    try:
        return Layout(record["clips"], record["clips_per_part"])
    except KeyError:
        raise UsageError("A cache of an earlier vidflow is not read: encode into another folder.") from None


def _path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.safetensors"
