"""A cache of one encoder's embeddings: every text once, written by `vidflow encode`, read at random by any run.

    encoder.json                 the digest of the encoder
    part-<digest>.safetensors    `embeddings` [all tokens, D] bfloat16, text after text
    part-<digest>.json           the texts, where each ends, and the digest of the file beside it; written last

A part is named by its texts and written whole or not at all, so an interrupted encode goes on with what is missing,
several processes can write into one folder, and a cache grows with the data sets that use it.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vidflow import files
from vidflow.errors import UsageError

TEXTS_PER_PART = 1024
Encode = Callable[[Sequence[str]], tuple[Float[np.ndarray, "B L D"], Bool[np.ndarray, "B L"]]]


class TextCache:
    """What `folder` holds of an encoder.

    Raises:
      UsageError: the embeddings there are another encoder's, or `digest` is empty and there are none.
    """

    def __init__(self, folder: Path, digest: str = "") -> None:
        self._folder = folder
        try:
            self.digest = files.read_record(folder / "encoder.json")["encoder"]
        except FileNotFoundError:
            if not digest:
                raise UsageError(f"{folder} holds no embeddings of texts: run vidflow encode.") from None
            folder.mkdir(parents=True, exist_ok=True)
            files.write_record(folder / "encoder.json", {"encoder": digest})
            self.digest = digest
        if digest not in ("", self.digest):
            raise UsageError(
                f"{folder} holds embeddings of another encoder, or of other settings of it: name another folder in "
                "config.text.cache, or another encoder."
            )
        self._place: dict[str, tuple[Path, int, int]] = {}
        self._parts: dict[Path, object] = {}
        for card in sorted(folder.glob("part-*.json")):
            self._read_card(card)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether there is one."""
        return (folder / "encoder.json").exists()

    def __contains__(self, text: str) -> bool:
        return text in self._place

    def __getitem__(self, text: str) -> Float[np.ndarray, "L D"]:
        """The embeddings of its tokens, bfloat16. KeyError for a text that is not here."""
        part, low, high = self._place[text]
        if part not in self._parts:
            self._parts[part] = safe_open(part, framework="numpy").__enter__()
        return self._parts[part].get_slice("embeddings")[low:high]

    def tokens(self, text: str) -> int:
        """How many embeddings a text has."""
        _, low, high = self._place[text]
        return high - low

    def add(self, texts: Sequence[str], encode: Encode) -> Iterator[int]:
        """Writes the embeddings of those texts that are not here yet, and yields how many each part has.

        Raises:
          UsageError: no room.
        """
        missing = [text for text in dict.fromkeys(texts) if text not in self]
        for low in range(0, len(missing), TEXTS_PER_PART):
            some = missing[low : low + TEXTS_PER_PART]
            self._write(some, *encode(some))
            yield len(some)

    def _write(self, texts: list[str], embeddings: np.ndarray, mask: np.ndarray) -> None:
        name = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
        arrays, card = (self._folder / f"part-{name}.{kind}" for kind in ("safetensors", "json"))
        temporary = files.temporary_beside(arrays)
        ends = mask.sum(axis=1).cumsum().tolist()
        try:
            save_file({"embeddings": embeddings[mask].astype(ml_dtypes.bfloat16)}, temporary)
            digest = files.sha256(temporary)
            os.replace(temporary, arrays)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise UsageError(f"Cannot write {arrays} ({error}): make room; what is written stays.") from None
        files.write_record(card, {"texts": texts, "ends": ends, "sha256": digest})
        self._note(arrays, texts, ends)

    def _read_card(self, path: Path) -> None:
        arrays = path.with_suffix(".safetensors")
        try:
            card = files.read_record(path)
            whole = files.sha256(arrays) == card["sha256"]
        except (UsageError, FileNotFoundError) as error:
            logging.warning("%s", error)
            return
        if whole:
            self._note(arrays, card["texts"], card["ends"])
        else:
            logging.warning("%s is not what was written there: its texts are encoded again.", arrays)

    def _note(self, part: Path, texts: list[str], ends: list[int]) -> None:
        for text, low, high in zip(texts, [0, *ends], ends, strict=False):
            self._place.setdefault(text, (part, low, high))
