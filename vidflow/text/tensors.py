"""The tensors of a folder of safetensors, one file or shards, read one part at a time."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vidflow import files
from vidflow.errors import UsageError

SINGLE, LISTED = "model.safetensors", "model.safetensors.index.json"
KINDS = ("F32", "F16", "BF16")


class Tensors:
    """Names, shapes and parts of the tensors in `folder`.

    Attributes:
      shards: the paths of the files.
      shapes: name -> shape. Names are without the first of `prefixes` that any begins with; those that then begin with
        one of `others` are left out. A tensor that is not there may have the name that `instead` has for it.

    Raises:
      UsageError: no weights there, an index that lists none, or a shard that is missing, cut short or lacks a tensor
        that the index lists.
    """

    def __init__(
        self,
        folder: Any,
        prefixes: Sequence[str] = (),
        others: tuple[str, ...] = (),
        instead: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder, listed = folder, {}
        if files.is_file(f"{folder}/{SINGLE}"):
            self.shards = [f"{folder}/{SINGLE}"]
        elif files.is_file(f"{folder}/{LISTED}"):
            listed = files.read_json(f"{folder}/{LISTED}").get("weight_map")
            if not listed or not isinstance(listed, dict):
                raise UsageError(f"{folder}/{LISTED} lists no tensors: copy it again.")
            self.shards = sorted({f"{folder}/{shard}" for shard in listed.values()})
        else:
            raise UsageError(
                f"{folder} holds neither {SINGLE} nor {LISTED}: name a folder as save_pretrained writes it; weights in "
                "pytorch_model.bin have to be saved again, as safetensors."
            )
        found = {name: shard for shard in self.shards for name in _names(shard)}
        if missing := sorted(listed.keys() - found.keys()):
            shard = listed[missing[0]]
            raise UsageError(f"{folder}/{shard} lacks '{missing[0]}', which {LISTED} lists: copy it again.")
        prefix = next((p for p in prefixes if any(name.startswith(p) for name in found)), "")
        place = {name.removeprefix(prefix): (shard, name) for name, shard in found.items()}
        place = {name: place[other] for name, other in instead.items() if other in place} | place
        self._place = {name: where for name, where in place.items() if not name.startswith(others)}
        self.shapes = {name: tuple(self._slice(name).get_shape()) for name in self._place}

    def read(self, name: str, part: Any = slice(None)) -> np.ndarray:
        """A tensor, or the part that an index of slices says.

        Raises:
          UsageError: a tensor of integers or of another dtype than float32, float16 and bfloat16.
        """
        found = self._slice(name)
        if found.get_dtype() not in KINDS:
            raise UsageError(
                f"'{name}' in {self._place[name][0]} is {found.get_dtype()}: vidflow reads {', '.join(KINDS)}; take "
                "the weights as they were before quantisation."
            )
        try:
            return found[part]
        except (SafetensorError, OSError) as error:
            raise UsageError(f"'{name}' in {self._place[name][0]} cannot be read ({error}): copy it again.") from None

    def full_name(self, name: str) -> str:
        """With its prefix, as it stands in the file."""
        return self._place[name][1]

    def _slice(self, name: str) -> Any:
        shard, full = self._place[name]
        return _opened(shard).get_slice(full)


def _names(path: str) -> list[str]:
    return list(_opened(path).keys())


def _opened(path: str) -> Any:
    # Opened for each read: a file that stays open stays mapped, and all of its pages count as this process's memory.
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: copy the whole folder.") from None
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a whole safetensors file ({error}): copy it again.") from None
