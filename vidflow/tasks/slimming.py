"""What encoding texts needs of a published folder: no decoder, no tower of images, and half the precision if wanted.

UL2 is 20 billion parameters, half of them its encoder's. A tensor at a time is read in parts, cast and kept until there
are enough for a file, so memory does not grow with the model.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from vidflow import files
from vidflow.errors import UsageError
from vidflow.text import pretrained, published, tokenizers
from vidflow.text.tensors import LISTED, SINGLE, Tensors

SHARE = 8  # a file written has at most this part of the largest file read, or one tensor
BLOCK = 2**24  # bytes that are read at a time


def slim(folder: Path, out: Path, dtype: Any) -> int:
    """Writes `out`, a folder that `load_encoder` and transformers read, and gives the bytes of its tensors. A call that
    is interrupted leaves no index, so that nothing takes what is there for a model.

    Raises:
      UsageError: no such folder, another kind of model, a file cut short; a model in `out` already; no folder there can
        be, or no room.
    """
    config = files.read_json(folder / "config.json")
    family = published.family(config, folder)
    weights = Tensors(folder, family.prefixes, family.others, family.instead)
    if (out / SINGLE).exists() or (out / LISTED).exists():
        raise UsageError(f"{out} holds a model already: name another folder.")
    limit = max(Path(shard).stat().st_size for shard in weights.shards) // SHARE
    size, pending = 0, {}
    place: dict[str, str] = {}
    files.make_folder(out)
    try:
        for left in out.glob("model-?????.safetensors"):  # by a call that was interrupted, perhaps of another dtype
            left.unlink()
        for name in sorted(weights.shapes):
            value = _cast(weights, name, dtype)
            if pending and sum(x.nbytes for x in pending.values()) + value.nbytes > limit:
                _flush(out, pending, place)
            pending[weights.full_name(name)] = value
            size += value.nbytes
        _flush(out, pending, place)
        words = Path(pretrained.tokenizer_folder(folder))
        for file in tokenizers.FILES:
            if (words / file).exists():
                shutil.copyfile(words / file, out / file)
        shutil.copyfile(folder / "config.json", out / "config.json")
    except (OSError, SafetensorError) as error:
        raise UsageError(f"Cannot write {out} ({error}): make room or choose another folder.") from None
    index = {"metadata": {"total_size": size}, "weight_map": place}
    files.write_whole(out / LISTED, json.dumps(index, indent=2) + "\n")
    return size


def _cast(weights: Tensors, name: str, dtype: Any) -> np.ndarray:
    """A tensor in another precision, read in parts: of a file the pages that are read count as memory meanwhile."""
    shape = weights.shapes[name]
    if not shape:
        return weights.read(name).astype(dtype)
    value = np.empty(shape, dtype)
    rows = max(1, BLOCK // max(1, value[:1].nbytes))
    for start in range(0, len(value), rows):
        stop = min(start + rows, len(value))
        value[start:stop] = weights.read(name, slice(start, stop))
    return value


def _flush(out: Path, pending: dict[str, np.ndarray], place: dict[str, str]) -> None:
    """Writes them as the next file, notes in which file they are, and empties the dictionary."""
    file = f"model-{len(set(place.values())) + 1:05d}.safetensors"
    save_file(pending, out / file)
    place |= dict.fromkeys(pending, file)
    pending.clear()
