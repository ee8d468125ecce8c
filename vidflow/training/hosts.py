"""The processes of a run, one on each host: what the first one does alone while the others wait.

All of them compute. The first also writes the run folder, which lies on storage that all of them read.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vidflow import files
from vidflow.errors import UsageError

SENTENCE = 2000  # bytes of an error that the other processes are told


def is_first() -> bool:
    """Whether this process writes files and shows progress."""
    return jax.process_index() == 0


def on_first(action: Callable[..., None], *arguments: Any) -> None:
    """Calls `action` on the first process alone; the others return when it is done.

    Raises:
      UsageError: what `action` raised on the first process, on all of them.
    """
    if jax.process_count() == 1:
        action(*arguments)
        return
    problem = ""
    if is_first():
        try:
            action(*arguments)
        except UsageError as error:
            problem = str(error)
    told = multihost_utils.broadcast_one_to_all(
        np.frombuffer(problem.encode()[:SENTENCE].ljust(SENTENCE), np.uint8)
    )
    problem = told.tobytes().decode(errors="ignore").rstrip()
    if problem:
        raise UsageError(problem)


@contextmanager
def held_by_first(folder: Path) -> Iterator[None]:
    """`files.held` by the first process, for all of them."""
    with ExitStack() as stack:
        on_first(lambda: stack.enter_context(files.held(folder)))
        yield


def gather(tree: Any) -> Any:
    """The arrays of a tree, spread over all processes, whole and as NumPy on the first; None on the others."""

    def whole(leaf: jax.Array) -> np.ndarray | None:
        leaf = jax.device_put(leaf, leaf.sharding.with_memory_kind("device"))  # from a host's memory nothing is sent
        value = everywhere(leaf)
        return value if is_first() else None

    return jax.tree.map(whole, tree)


def everywhere(array: jax.Array) -> np.ndarray:
    """An array that is spread over all processes, whole and as NumPy on each."""
    return multihost_utils.process_allgather(array, tiled=True)


def spread(array: Any, place: jax.sharding.Sharding) -> jax.Array:
    """An array that every process has whole, as one that lies in parts on the devices of all."""
    return jax.make_array_from_callback(array.shape, place, lambda index: array[index])
