"""Batches as a function of the step: `batch(step)`, read ahead by Grain.

Row r of step s is element s * batch_size + r of one global order of the data, whatever the number of processes, and
a process reads only the rows that its devices hold.
"""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from vidflow.errors import UsageError

FOREVER = 2**40  # rows in the global order; no run reads so many
AHEAD = 8  # batches that are read before they are asked for, and at least one by each thread


@runtime_checkable
class Source(Protocol):
    """Examples by index, each a dict of NumPy arrays."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


def rows(source: Source, *, seed: int) -> grain.MapDataset:
    """The examples of a finite source in its endless global order, each with its `index` in the source, unless the
    source gives another itself.

    Raises:
      UsageError: an empty source.
    """

    def example(index: int) -> dict[str, Any]:
        found = source[index]
        return {**found, "index": np.int32(found.get("index", index))}

    return order(source, seed=seed).map(example)


def order(source: Source, *, seed: int) -> grain.MapDataset:
    """The endless global order: indices of the source, epoch after epoch, each shuffled on its own.

    Raises:
      UsageError: an empty source.
    """
    if len(source) == 0:
        raise UsageError("The data source holds no example: look at config.data.")
    return grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()


def indices(source: Source, step: int, *, seed: int, batch_size: int) -> list[int]:
    """Which examples of the source the rows of a step are."""
    numbers = order(source, seed=seed)
    return [int(numbers[step * batch_size + row]) for row in range(batch_size)]


def batches(
    dataset: grain.MapDataset, *, batch_size: int, start: int, sharding: NamedSharding, threads: int = 2
) -> Iterator[dict[str, jax.Array]]:
    """The batches of steps start, start + 1, ... as global arrays laid out by `sharding`.

    Every batch holds `row`, the global row numbers 0 .. batch_size - 1, beside what the source gives.
    """
    mine = _local_rows(sharding, batch_size)

    def example(index: int) -> dict[str, Any]:
        step, place = divmod(index, len(mine))
        row = mine[place]
        return {**dataset[step * batch_size + row], "row": np.int32(row)}

    local = (
        grain.MapDataset.range(start * len(mine), FOREVER)
        .map(example)
        .batch(len(mine))
        .to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(AHEAD, threads)))
    )
    for batch in local:
        yield jax.tree.map(lambda a: _global_array(a, mine, sharding, batch_size), batch)


def _local_rows(sharding: NamedSharding, batch_size: int) -> list[int]:
    """The rows that some device of this process holds, in order; two processes may hold the same row."""
    held = set()
    for (rows_held, *_) in sharding.addressable_devices_indices_map((batch_size,)).values():
        held.update(range(*rows_held.indices(batch_size)))
    return sorted(held)


def _global_array(local: np.ndarray, mine: list[int], sharding: NamedSharding, batch_size: int) -> jax.Array:
    place = {row: index for index, row in enumerate(mine)}

    def part(index: tuple[slice, ...]) -> np.ndarray:
        return local[[place[row] for row in range(*index[0].indices(batch_size))]]

    return jax.make_array_from_callback((batch_size, *local.shape[1:]), sharding, part)
