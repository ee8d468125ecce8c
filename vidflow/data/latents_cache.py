"""A cache of encoded clips: latents and captions on disk, written once by `vidflow encode`, read at random.

    latents.json           what it was made from and how many clips; written last, so its presence means "whole"
    part-00000.safetensors `latents` [n, t, h, w, c] float16, normalised
    part-00000.json        captions, and the digest of the latents file beside it

Parts are written whole or not at all, so an interrupted encode goes on with the first missing part, and several
processes can each write a share of them.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vidflow import files
from vidflow.errors import UsageError

CLIPS_PER_PART = 1024
Part = tuple[Float[np.ndarray, "n t h w c"], Sequence[str]]


class Share(NamedTuple):
    """Every `of`-th part, from number `index` on, counted from 0."""

    index: int = 0
    of: int = 1

    def of_parts(self, parts: int) -> range:
        """Their numbers."""
        return range(self.index, parts, self.of)


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


def write(
    folder: Path, recipe: dict[str, Any], clips: int, encode: Callable[[range], Part], share: Share = ALL
) -> Iterator[int]:
    """Writes the missing parts of a cache of `clips` clips, or a share of them, and yields the number of clips of each.

    The cache is whole when every part is: whichever process sees that at its end says so.

    Args:
      folder: of the cache; made if absent.
      recipe: what the latents depend on (data, autoencoder digest), JSON values.
      encode: latents and captions of a range of clip indices.
      share: of the parts, which this process writes; others write the rest into the same folder.

    Raises:
      UsageError: the folder holds a cache, or the start of one, of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe = json.loads(json.dumps(recipe))
    begun = folder / "recipe.json"
    if begun.exists() and files.read_record(begun) != recipe:
        raise UsageError(f"{folder} holds latents of other data or another autoencoder: use another folder.")
    files.write_record(begun, recipe)
    parts = _parts(clips)
    for number in share.of_parts(len(parts)):
        if not _part_is_whole(folder, number):
            latents, captions = encode(parts[number])
            _write_part(folder, number, latents, captions)
        yield len(parts[number])
    if all(number % share.of == share.index or _part_is_whole(folder, number) for number in range(len(parts))):
        files.write_record(folder / "latents.json", {"recipe": recipe, "clips": clips, "parts": len(parts)})


def clips_in(clips: int, share: Share) -> int:
    """How many of so many clips a share has."""
    parts = _parts(clips)
    return sum(len(parts[number]) for number in share.of_parts(len(parts)))


def is_whole(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether the folder holds the finished cache of this recipe; its parts are verified when it is read."""
    try:
        return files.read_record(folder / "latents.json")["recipe"] == recipe
    except (FileNotFoundError, UsageError):
        return False


def number_of_clips(folder: Path) -> int:
    """In a whole cache."""
    return files.read_record(folder / "latents.json")["clips"]


def captions(folder: Path, clips: int, share: Share = ALL) -> list[str]:
    """Those of a share of the parts, which are there."""
    cards = (_names(folder, number)[1] for number in share.of_parts(len(_parts(clips))))
    return [caption for card in cards for caption in files.read_record(card)["captions"]]


class LatentsSource:
    """The examples of a whole cache: {"latents": float32 [t, h, w, c], "caption": str}.

    Raises:
      UsageError: no whole cache in the folder, or a part that is missing, cut short or altered.
    """

    def __init__(self, folder: Path) -> None:
        try:
            index = files.read_record(folder / "latents.json")
        except FileNotFoundError:
            raise UsageError(
                f"{folder} holds no whole cache of latents (no latents.json there): run vidflow encode."
            ) from None
        self.recipe, clips, parts = index["recipe"], index["clips"], index["parts"]
        self._captions: list[str] = []
        self._latents = []
        for number in range(parts):
            if not _part_is_whole(folder, number):
                raise UsageError(f"Part {number} of {folder} is missing or damaged: run vidflow encode again.")
            self._captions += files.read_record(_names(folder, number)[1])["captions"]
            with safe_open(_names(folder, number)[0], framework="numpy") as part:
                self._latents.append(part.get_tensor("latents"))
        if len(self._captions) != clips or sum(map(len, self._latents)) != clips:
            raise UsageError(f"{folder} lacks some of its {clips} clips: run vidflow encode again.")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self._latents[0].shape[1:]

    @property
    def captions(self) -> Sequence[str]:
        return self._captions

    def __len__(self) -> int:
        return len(self._captions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, place = divmod(index, CLIPS_PER_PART)
        return {"latents": self._latents[part][place].astype(np.float32), "caption": self._captions[index]}


def _parts(clips: int) -> list[range]:
    return [range(low, min(low + CLIPS_PER_PART, clips)) for low in range(0, clips, CLIPS_PER_PART)]


def _names(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"part-{number:05d}.safetensors", folder / f"part-{number:05d}.json"


def _write_part(folder: Path, number: int, latents: np.ndarray, captions: Sequence[str]) -> None:
    arrays, text = _names(folder, number)
    temporary = arrays.with_name(arrays.name + ".tmp")
    try:
        save_file({"latents": np.ascontiguousarray(latents, np.float16)}, temporary)
        digest = files.sha256(temporary)
        os.replace(temporary, arrays)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"Cannot write {arrays} ({error}): make room; what is written stays, and goes on.") from None
    card = {"captions": list(captions), "sha256": digest}
    files.write_record(text, card)  # last: it vouches for the arrays


def _part_is_whole(folder: Path, number: int) -> bool:
    arrays, text = _names(folder, number)
    try:
        return files.sha256(arrays) == files.read_record(text)["sha256"]
    except FileNotFoundError:
        return False
    except UsageError as error:
        logging.warning("%s", error)
        return False

