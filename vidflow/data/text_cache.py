"""A cache of one encoder's embeddings: every text once, written by `vidflow encode`, read at random by any run.

    encoder.json                 the digest of the encoder
    part-<digest>.safetensors    embeddings [all tokens, D] bfloat16, text after text; in the .json beside it the texts

A part is named by its texts and written whole or not at all (`data.parts`), so an interrupted encode goes on with what
is missing, several processes can write into one folder, and a cache grows with the data sets that use it.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
from jaxtyping import Bool, Float

from vidflow import files
from vidflow.data import parts
from vidflow.data.parts import Part
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
        path = self._folder / f"part-{name}.safetensors"
        ends = mask.sum(axis=1).cumsum().tolist()
        parts.write(path, embeddings[mask].astype(ml_dtypes.bfloat16), ends, {"texts": texts})
        self._note(path)

    def _note(self, path: Path) -> None:
        if card := parts.card(path):
            part = Part(path, card)
            for number, text in enumerate(card["texts"]):
                self._place.setdefault(text, (part, number))
