"""Parts of a cache: an array on disk that is read a slice at a time, each slice checked when it is read.

    part-<name>.safetensors    one array, slice after slice
    part-<name>.json           what the slices are, where each ends, and its CRC-32; written last

Nothing is held in memory, and opening a cache reads its cards alone: it may be larger than a host.
"""

import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vidflow import files
from vidflow.errors import UsageError

ARRAY = "slices"
SLICES, BYTES = 1024, 2**30  # at most, of a part: what making one holds in memory, and does again after a kill


def slices_per_part(size: int) -> int:
    """How many slices of so many bytes a part has."""
    return max(1, min(SLICES, BYTES // size))


def write(path: Path, array: np.ndarray, ends: Sequence[int], said: dict[str, Any]) -> None:
    """Writes a part, whole or not at all.

    Args:
      path: of the array's file.
      array: slices along the first axis, one after the other.
      ends: of each slice.
      said: of the slices, JSON values, for the card.

    Raises:
      UsageError: no room.
    """
    temporary = files.temporary_beside(path)
    try:
        save_file({ARRAY: np.ascontiguousarray(array)}, temporary)
        size = temporary.stat().st_size
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"Cannot write {path} ({error}): make room; what is written stays, and goes on.") from None
    sums = [zlib.crc32(array[low:high].tobytes()) for low, high in zip([0, *ends], ends, strict=False)]
    kind = {"dtype": str(array.dtype), "shape": list(array.shape[1:])}
    files.write_record(path.with_suffix(".json"), {**said, "ends": list(ends), "crc32": sums, "bytes": size, **kind})


def card(path: Path) -> dict[str, Any] | None:
    """What vouches for the part whose array is in `path`; None where it is missing, or not what was written."""
    try:
        found = files.read_record(path.with_suffix(".json"))
        if path.stat().st_size == found.get("bytes"):
            return found
        logging.warning("%s is not what was written there: it is made again.", path)
    except FileNotFoundError:
        pass
    except UsageError as error:
        logging.warning("%s", error)
    return None


class Part:
    """The slices of the array in `path`, by number."""

    def __init__(self, path: Path, card: dict[str, Any]) -> None:
        self._path, self._ends, self._sums = path, card["ends"], card["crc32"]
        self._kind = card["dtype"], card["shape"]
        self._array: Any = None

    def __getitem__(self, number: int) -> np.ndarray:
        """Raises UsageError: the slice is not what was written, or the storage does not give it."""
        found = self._read(*self._bounds(number))
        kind = str(found.dtype), list(found.shape[1:])
        if kind != self._kind or zlib.crc32(found.tobytes()) != self._sums[number]:
            raise UsageError(
                f"{self._path} is damaged: delete it, and vidflow encode, or the run if it is its own, makes it again."
            )
        return found

    def _read(self, low: int, high: int) -> np.ndarray:
        try:
            if self._array is None:
                self._array = safe_open(self._path, framework="numpy").__enter__().get_slice(ARRAY)
            return self._array[low:high]
        except SafetensorError:
            return np.zeros(0)  # which is nothing that was written
        except OSError as error:
            raise UsageError(f"{self._path} cannot be read ({error}): see to the storage, then go on.") from None

    def length(self, number: int) -> int:
        """Of a slice."""
        low, high = self._bounds(number)
        return high - low

    def _bounds(self, number: int) -> tuple[int, int]:
        return self._ends[number - 1] if number else 0, self._ends[number]
