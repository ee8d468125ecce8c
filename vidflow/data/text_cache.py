"""A cache of one encoder's embeddings: every text once, written by `vidflow encode`, read at random by any run.

    encoder.json                 the digest of the encoder, and how it was told to encode
    part-<digest>.safetensors    embeddings [all tokens, D] bfloat16, text after text; in the .json beside it the texts
                                 and the digest of the encoder

A part is named by its texts and written whole or not at all (`data.parts`), so an interrupted encode goes on with what
is missing, several processes can write into one folder, and a cache grows with the data sets that use it.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Bool, Float

from vidflow import files
from vidflow.data import parts
from vidflow.data.parts import Part
from vidflow.errors import UsageError

Encode = Callable[[Sequence[str]], tuple[Float[np.ndarray, "B L D"], Bool[np.ndarray, "B L"]]]


class TextCache:
    """What `folder` holds of an encoder.

    Args:
      folder: of the cache; made if absent.
      how: the encoder was told to encode, JSON values.
      digest: of the encoder; empty: whichever the folder has.

    Raises:
      UsageError: the embeddings there are another encoder's or were made in another way, nobody says whose they are, or
        `digest` is empty and there are none.
    """

    def __init__(self, folder: Path, how: dict[str, Any], digest: str = "") -> None:
        self._folder = folder
        record = folder / "encoder.json"
        if not record.exists():
            if not digest:
                raise UsageError(f"{folder} holds no embeddings of texts: run vidflow encode.")
            files.make_folder(folder)
            if any(folder.glob("part-*")):
                raise UsageError(
                    f"{folder} holds embeddings, and {record.name}, which says whose, is missing: restore it, or "
                    "delete them to have them made again."
                )
            files.write_record(record, {"encoder": digest, **how})
        found = files.read_record(record)
        self.digest = found.pop("encoder")
        if digest not in ("", self.digest) or found != how:
            raise UsageError(
                f"{folder} holds embeddings of another encoder, or of other settings of it ({_said(found)}; not "
                f"{_said(how)}): name another folder in config.text.cache, or encoder and settings as they were."
            )
        self._place: dict[str, tuple[Part, int]] = {}
        for path in sorted(folder.glob("part-*.safetensors")):
            self._note(path)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether there is one."""
        return (folder / "encoder.json").exists()

    def __contains__(self, text: str) -> bool:
        return text in self._place

    def __getitem__(self, text: str) -> Float[np.ndarray, "L D"]:
        """The embeddings of its tokens, bfloat16. KeyError for a text that is not here, UsageError for damaged ones."""
        part, number = self._place[text]
        return part[number]

    def tokens(self, text: str) -> int:
        """How many embeddings a text has."""
        part, number = self._place[text]
        return part.length(number)

    def add(self, texts: Sequence[str], encode: Encode, text_bytes: int) -> Iterator[int]:
        """Writes the embeddings of those texts that are not here yet, and yields how many each part has.

        Args:
          texts: each is encoded once.
          encode: texts -> embeddings and mask.
          text_bytes: of the embeddings of the longest text, as `encode` gives them.

        Raises:
          UsageError: no room, or embeddings that are no numbers.
        """
        missing = [text for text in dict.fromkeys(texts) if text not in self]
        count = parts.slices_per_part(text_bytes)
        for low in range(0, len(missing), count):
            some = missing[low : low + count]
            self._write(some, *encode(some))
            yield len(some)

    def _write(self, texts: list[str], embeddings: np.ndarray, mask: np.ndarray) -> None:
        name = hashlib.sha256(json.dumps([self.digest, texts]).encode()).hexdigest()[:16]
        path = self._folder / f"part-{name}.safetensors"
        finite = np.isfinite(embeddings).all(axis=(1, 2))
        if not finite.all():
            raise UsageError(
                f"The embedding of '{texts[int(np.argmin(finite))][:60]}' for {self._folder} is no number: see to the "
                "encoder's weights, or set config.text.dtype=float32."
            )
        ends = mask.sum(axis=1).cumsum().tolist()
        said = {"texts": texts, "encoder": self.digest}
        parts.write(path, embeddings.astype(ml_dtypes.bfloat16)[mask], ends, said)
        self._note(path)

    def _note(self, path: Path) -> None:
        card = parts.card(path)
        if card and card.get("encoder", self.digest) != self.digest:  # of two that began the folder at once
            logging.warning("%s holds embeddings of another encoder, which are not read.", path)
        elif card:
            part = Part(path, card)
            for number, text in enumerate(card["texts"]):
                self._place.setdefault(text, (part, number))


def _said(how: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in how.items()) or "none said"
