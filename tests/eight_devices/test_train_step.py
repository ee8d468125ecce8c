"""A whole training step on every kind of mesh: the losses of one device."""

import jax
import numpy as np
import pytest

from vidflow import config as configs
from vidflow.errors import UsageError
from vidflow.parallel import rules
from vidflow.parallel.mesh import batch_sharding, make_mesh
from vidflow.tasks import text_to_video
from vidflow.training.program import make_program

EXPERIMENT = "experiments/bounce/text_to_video.py:smoke"
STEPS = 20
MESHES = [(1, 2, 2, 2)]  # each compiles for half a minute
MORE = [(1, 1, 8, 1), (8, 1, 1, 1), (1, 8, 1, 1), (1, 1, 1, 8), (2, 1, 2, 2)]


def losses(mesh_shape, microbatches=1, table=rules.DEFAULT, **model):
    """Of 20 steps of the smoke experiment on random latents, by the very step of a run."""
    config = configs.load(EXPERIMENT)
    config.model.update(model)
    config.microbatches = microbatches
    learner, mesh = text_to_video.outline(config), make_mesh(*mesh_shape)
    rng = np.random.default_rng(0)
    result = []
    with rules.in_force(table):
        program = make_program(config, learner, mesh)
        state = program.initialise(jax.random.key(0))
        for number in range(STEPS):
            batch = {
                "latents": rng.normal(size=(8, *learner.row["latents"].shape)).astype(np.float32),
                "text": rng.integers(1, 200, size=(8, *learner.row["text"].shape)).astype(np.int32),
                "row": np.arange(8) + 8 * number,
                "index": np.arange(8) + 8 * number,
            }
            with jax.set_mesh(mesh):
                state, metrics = program.step(state, jax.device_put(batch, batch_sharding(mesh)), program.given(number))
            result.append(float(metrics["loss"]))
    # Elsewhere than it was, the state would make the second step compile again.
    jax.tree.map(lambda leaf, before: _assert_same_place(leaf, before), state, program.state)
    return result, state


def _assert_same_place(leaf, before):
    assert leaf.sharding.is_equivalent_to(before.sharding, leaf.ndim), (leaf.sharding, before.sharding)


@pytest.fixture(scope="module")
def alone():
    return losses((1, 1, 1, 1))[0]


@pytest.mark.parametrize("shape", [*MESHES, *(pytest.param(m, marks=pytest.mark.slow) for m in MORE)], ids=str)
def test_losses_are_those_of_one_device(shape, alone):
    np.testing.assert_allclose(losses(shape)[0], alone, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_microbatches_on_a_mesh_change_nothing(alone):
    np.testing.assert_allclose(losses((1, 2, 2, 2), microbatches=2)[0], alone, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("table", ["fsdp", "replicated"])
def test_every_table_of_rules_trains_alike(table, alone):
    got, state = losses((1, 2, 2, 2), table=table)
    np.testing.assert_allclose(got, alone, rtol=0, atol=1e-5)
    kernel = state.params["params"]["backbone"]["blocks"]["feed_forward"]["up"]["kernel"]
    parts = {"fsdp": 4, "replicated": 2}[table]  # over fsdp and tensor, over tensor alone
    assert kernel.addressable_shards[0].data.size * parts == kernel.size


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["local", "allgather", "ulysses", "ring", "usp"])
def test_every_strategy_trains_alike(strategy, alone):
    np.testing.assert_allclose(losses((1, 1, 4, 2), strategy=strategy)[0], alone, rtol=0, atol=1e-5)


def test_state_is_spread_over_the_devices():
    state = losses((1, 2, 2, 2))[1]
    for tree in (state.params, state.ema, state.opt_state):
        matrices = [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim >= 2 and leaf.size > 1000]
        shares = [leaf.addressable_shards[0].data.size / leaf.size for leaf in matrices]
        assert max(shares) <= 1 / 2 and np.median(shares) <= 1 / 4


def test_a_mesh_that_does_not_divide_is_refused_before_an_autoencoder_is_trained(tmp_path):
    config = configs.load(EXPERIMENT)
    config.mesh.update({"data": 4, "sequence": 2})
    config.model.design.time = "in_context"
    with pytest.raises(UsageError, match="33 tokens does not divide"):
        text_to_video.build(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
