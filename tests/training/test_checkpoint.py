"""Checkpoints: exact, whole, and of the right model."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vidflow.errors import UsageError
from vidflow.training import digests
from vidflow.training.checkpoint import Checkpoints, restore_ema
from vidflow.training.state import State, fresh


def state(step=3, width=4):
    params = {"a": {"kernel": jax.random.normal(jax.random.key(0), (2, width))}, "b": jnp.arange(3.0)}
    ema = jax.tree.map(lambda x: x + 1, params)
    return fresh(params, optax.adam(1e-3)).replace(ema=ema, step=jnp.asarray(step, jnp.int32))


def save(folder, *steps, **kept):
    """Saves these steps; a pair is a step and its metric `loss`."""
    checkpoints = Checkpoints(folder, **kept)
    for entry in steps:
        step, loss = entry if isinstance(entry, tuple) else (entry, None)
        checkpoints.save(state(step), step, None if loss is None else {"loss": loss})
    checkpoints.close()


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir())


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
    assert steps_in(tmp_path / "c") == [6, 9]  # two are kept


def test_the_newest_the_round_and_the_best_are_kept(tmp_path):
    losses = [(1, 5.0), (2, 2.0), (3, 4.0), (4, 3.0), (5, 9.0), (6, 3.5), (7, 8.0), (8, 7.0), (9, 6.0)]
    save(tmp_path / "c", *losses, keep=2, keep_every=5, best="loss")
    assert steps_in(tmp_path / "c") == [2, 5, 8, 9]
    save(tmp_path / "c", (10, 1.0), 11, keep=2, keep_every=5, best="loss")  # another process; one without a metric
    assert steps_in(tmp_path / "c") == [5, 10, 11]
    assert restore_ema(tmp_path / "c")[1] == 11
    assert restore_ema(tmp_path / "c", step=5)[1] == 5
    ema, step = restore_ema(tmp_path / "c", best="loss")
    assert step == 10
    jax.tree.map(np.testing.assert_array_equal, ema, state(10).ema)
    save(tmp_path / "c", (12, 3.0), (13, 3.0), (14, 3.0), keep=1, best="loss")
    assert steps_in(tmp_path / "c") == [10, 14]


def test_a_run_may_go_on_with_another_metric(tmp_path):
    save(tmp_path / "c", (1, 5.0), (2, 2.0), keep=1, best="loss")
    checkpoints = Checkpoints(tmp_path / "c", keep=1, best="psnr_error")
    for step, error in ((3, 0.3), (4, 0.4)):
        checkpoints.save(state(step), step, {"psnr_error": error})
    checkpoints.close()
    assert steps_in(tmp_path / "c") == [3, 4]
    assert restore_ema(tmp_path / "c", best="psnr_error")[1] == 3


def test_a_metric_that_no_checkpoint_has_is_refused(tmp_path):
    save(tmp_path / "c", (1, 5.0), (2, 2.0), best="loss")
    with pytest.raises(UsageError, match="no checkpoint with a metric 'psnr'.* one of its steps, 1, 2"):
        restore_ema(tmp_path / "c", best="psnr")


def test_a_step_that_is_damaged_again_is_set_aside_again(tmp_path):
    save(tmp_path / "c", 1, 2)
    for _ in range(2):
        for file in (tmp_path / "c" / "2" / "state").rglob("*"):
            if file.is_file():
                file.write_bytes(bytes(file.stat().st_size))
        checkpoints = Checkpoints(tmp_path / "c")
        assert int(checkpoints.restore(abstract(state())).step) == 1
        checkpoints.save(state(2), 2)
        checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "2", "2.damaged"]


@pytest.mark.parametrize("date", [571024 * 365 * 86400 * 10**9, 10**400, -(10**30)])
def test_a_step_of_an_impossible_date_is_set_aside(tmp_path, date):
    save(tmp_path / "c", 1, 2)
    metadata = tmp_path / "c" / "2" / "_CHECKPOINT_METADATA"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"commit_timestamp_nsecs": date}))
    with pytest.raises(UsageError, match="of step 2 in .* was saved at a time that cannot be"):
        restore_ema(tmp_path / "c")
    checkpoints = Checkpoints(tmp_path / "c")
    assert int(checkpoints.restore(abstract(state())).step) == 1
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "2.damaged"]
    assert restore_ema(tmp_path / "c")[1] == 1


@pytest.mark.parametrize(
    ("error", "taken"),
    [
        (OSError(5, "Input/output error"), 2),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), None),
        (PermissionError(13, "Permission denied"), None),
    ],
)
def test_what_fails_for_a_moment_or_for_want_of_memory_is_no_damage(tmp_path, monkeypatch, error, taken):
    save(tmp_path / "c", 1, 2)
    checkpoints, errors = Checkpoints(tmp_path / "c"), [error] if taken else [error, error]
    restore = checkpoints._manager.restore

    def failing(*arguments, **more):
        if errors:
            raise errors.pop()
        return restore(*arguments, **more)

    monkeypatch.setattr(checkpoints._manager, "restore", failing)
    if taken:
        assert int(checkpoints.restore(abstract(state())).step) == taken
    else:
        with pytest.raises(UsageError, match="step 2 in .* cannot be read here"):
            checkpoints.restore(abstract(state()))
    checkpoints.close()
    assert steps_in(tmp_path / "c") == [1, 2]


def test_a_step_that_is_there_is_not_written_again(tmp_path):
    save(tmp_path / "c", 3)
    before = (tmp_path / "c" / "3" / "_CHECKPOINT_METADATA").stat().st_mtime_ns
    save(tmp_path / "c", 3)
    assert (tmp_path / "c" / "3" / "_CHECKPOINT_METADATA").stat().st_mtime_ns == before


def test_digests_see_every_change():
    value = jax.random.normal(jax.random.key(0), (6, 5))
    swapped = value.at[0, 0].set(value[1, 1]).at[1, 1].set(value[0, 0])
    changed = [swapped, value.T, value.at[3, 3].multiply(1 + 1e-6), -value, value.astype(jnp.bfloat16)]
    (whole,) = digests.of_tree({"x": value}).values()
    assert digests.of_tree({"x": jnp.array(value)}) == {"x": whole}
    assert whole not in [digests.of_tree({"x": other})["x"] for other in changed]
    zeros = digests.of_tree({"a": jnp.zeros(3), "b": jnp.zeros(3).at[1].set(-0.0), "c": jnp.zeros(3, jnp.int32)})
    assert zeros["a"] == zeros["c"] != zeros["b"]


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
