"""Parameter trees as safetensors files: names are paths joined by "/"."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vidflow.errors import UsageError


def save(path: Path, params: Any, metadata: dict[str, str] | None = None) -> None:
    """Writes the tree whole or not at all; dtypes are kept."""
    flat = traverse_util.flatten_dict(params, sep="/")
    temporary = path.with_name(path.name + ".tmp")
    save_file({name: np.ascontiguousarray(value) for name, value in flat.items()}, temporary, metadata)
    os.replace(temporary, path)


def load(path: Path) -> tuple[Any, dict[str, str]]:
    """The tree in float32, and the metadata.

    Raises:
      UsageError: no such file, or one that is not a whole safetensors file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            flat = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
            return traverse_util.unflatten_dict(flat, sep="/"), file.metadata() or {}
    except FileNotFoundError:
        raise UsageError(f"There are no weights at {path}: train first, or name another run.") from None
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a whole safetensors file ({error}): copy or train it again.") from None


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
