"""Checkpoints: exact, whole, and of the right model."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vidflow.errors import UsageError
from vidflow.training.checkpoint import Checkpoints, restore_ema
from vidflow.training.state import State, fresh


def state(step=3, width=4):
    params = {"a": {"kernel": jax.random.normal(jax.random.key(0), (2, width))}, "b": jnp.arange(3.0)}
    ema = jax.tree.map(lambda x: x + 1, params)
    return fresh(params, optax.adam(1e-3)).replace(ema=ema, step=jnp.asarray(step, jnp.int32))


def save(folder, *steps):
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(state(step), step)
    checkpoints.close()


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def test_the_newest_step_comes_back_bit_for_bit(tmp_path):
    save(tmp_path / "c", 3, 6, 9)
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.latest() == 9
    restored = checkpoints.restore(abstract(state(9)))
    assert isinstance(restored, State)
    jax.tree.map(np.testing.assert_array_equal, restored, state(9))
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["6", "9"]  # two are kept


def test_the_average_is_read_without_the_rest(tmp_path):
    save(tmp_path / "c", 4)
    ema, step = restore_ema(tmp_path / "c")
    assert step == 4
    jax.tree.map(np.testing.assert_array_equal, ema, state(4).ema)


def test_a_half_written_checkpoint_is_never_offered(tmp_path):
    save(tmp_path / "c", 3)
    half = tmp_path / "c" / "6.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "state").mkdir()
    assert restore_ema(tmp_path / "c")[1] == 3
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.latest() == 3
    checkpoints.close()
    deadline = time.monotonic() + 60
    while half.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not half.exists()  # it is cleaned up, in the background


def test_a_checkpoint_of_another_model_is_refused_by_its_first_difference(tmp_path):
    save(tmp_path / "c", 3)
    checkpoints = Checkpoints(tmp_path / "c")
    with pytest.raises(UsageError, match=r"'a/kernel' is \(2, 4\) there and \(2, 5\)"):
        checkpoints.restore(abstract(state(width=5)))
    checkpoints.close()


def test_no_checkpoint_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="no whole checkpoint"):
        restore_ema(tmp_path)
