"""Parameter trees as safetensors files: names are paths joined by "/"."""

import hashlib
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import save_file

from vidflow import files
from vidflow.errors import UsageError

DIGEST = "sha256"  # of the tensors, in the metadata of a file


def save(path: Path, params: Any, metadata: dict[str, str] | None = None) -> None:
    """Writes the tree whole or not at all, with a digest of its tensors in the metadata; dtypes are kept."""
    flat = {name: np.ascontiguousarray(x) for name, x in traverse_util.flatten_dict(params, sep="/").items()}
    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file(flat, temporary, {**(metadata or {}), DIGEST: _digest(flat)})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"Cannot write {path} ({error}): make room or choose another place.") from None
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> tuple[Any, dict[str, str]]:
    """The tree in float32, and the metadata; a file from elsewhere, without our digest, is taken as it is.

    Raises:
      UsageError: no such file, or one that is not a whole safetensors file, or whose tensors were altered.
    """
    flat, metadata = files.read_tensors(path)
    if metadata.pop(DIGEST, None) not in (None, _digest(flat)):
        raise UsageError(f"The tensors in {path} are not those that were written: copy or train it again.")
    flat = {name: value.astype(np.float32, copy=False) for name, value in flat.items()}
    return traverse_util.unflatten_dict(flat, sep="/"), metadata


def _digest(flat: dict[str, np.ndarray]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(flat):
        total.update(f"{name} {flat[name].dtype} {flat[name].shape}\n".encode())
        total.update(np.ascontiguousarray(flat[name]).data)
    return total.hexdigest()


def check_shapes(params: Any, like: Any, where: Path) -> None:
    """Raises UsageError, naming the first difference, unless `params` has the shapes of the abstract tree `like`."""
    have = {name: np.shape(value) for name, value in traverse_util.flatten_dict(params, sep="/").items()}
    want = {name: value.shape for name, value in traverse_util.flatten_dict(like, sep="/").items()}
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            raise UsageError(
                f"The weights at {where} are of another model: '{name}' is {have.get(name, 'absent')} there and "
                f"{want.get(name, 'absent')} in its config."
            )


def rounded(params: Any, dtype: Any) -> Any:
    """The tree in another precision."""
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype), params)
