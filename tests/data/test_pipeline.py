"""Batches as a function of the step."""

import itertools
import threading

import jax
import numpy as np
import pytest

from vidflow.data import pipeline
from vidflow.errors import UsageError
from vidflow.parallel.mesh import batch_sharding, make_mesh


class Numbers:
    """A source whose example i is the number i."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"x": np.float32(index)}


def take(count, *, start=0, length=10, batch_size=4, seed=0):
    rows = pipeline.rows(Numbers(length), seed=seed)
    sharding = batch_sharding(make_mesh())
    stream = pipeline.batches(rows, batch_size=batch_size, start=start, sharding=sharding)
    return [jax.tree.map(np.asarray, batch) for batch in itertools.islice(stream, count)]


def test_starting_at_a_step_gives_the_batches_from_that_step_on():
    whole, tail = take(6), take(4, start=2)
    for a, b in zip(whole[2:], tail, strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])


def test_rows_are_numbered_within_the_batch():
    for batch in take(3):
        np.testing.assert_array_equal(batch["row"], [0, 1, 2, 3])


def test_every_epoch_holds_every_example_once_in_an_order_of_its_own():
    order = np.concatenate([batch["x"] for batch in take(5)])  # 20 rows of 10 examples: two epochs
    first, second = order[:10], order[10:]
    np.testing.assert_array_equal(np.sort(first), np.arange(10))
    np.testing.assert_array_equal(np.sort(second), np.arange(10))
    assert (first != second).any() and (first != np.arange(10)).any()


def test_the_global_order_does_not_depend_on_the_batch_size():
    small = np.concatenate([batch["x"] for batch in take(6, batch_size=2)])
    large = np.concatenate([batch["x"] for batch in take(2, batch_size=6)])
    np.testing.assert_array_equal(small, large)


def test_the_seed_changes_the_order():
    assert any((a["x"] != b["x"]).any() for a, b in zip(take(3), take(3, seed=1), strict=True))


def test_every_thread_reads():
    """Twelve threads, of which none gets its example before all have asked for one."""
    together = threading.Barrier(12, timeout=20)

    class Slow(Numbers):
        def __getitem__(self, index):
            together.wait()
            return super().__getitem__(index)

    rows, sharding = pipeline.rows(Slow(100), seed=0), batch_sharding(make_mesh())
    stream = pipeline.batches(rows, batch_size=1, start=0, sharding=sharding, threads=12)
    assert next(stream)["x"].shape == (1,)
    together.abort()


def test_an_empty_source_is_an_error_at_the_start():
    with pytest.raises(UsageError, match="no example"):
        pipeline.rows(Numbers(0), seed=0)
