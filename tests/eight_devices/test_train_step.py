"""A whole training step on every kind of mesh: the losses of one device."""

import jax
import numpy as np
import pytest

from vidflow import config as configs
from vidflow.parallel import rules
from vidflow.parallel.mesh import batch_sharding, make_mesh
from vidflow.tasks import text_to_video
from vidflow.training import state as states
from vidflow.training.optimizer import make_optimizer
from vidflow.training.step import make_step

EXPERIMENT = "experiments/bounce/text_to_video.py:smoke"
STEPS = 20
MESHES = [(8, 1, 1, 1), (1, 8, 1, 1), (1, 1, 8, 1), (1, 1, 1, 8), (1, 2, 2, 2), (2, 1, 2, 2)]


def losses(mesh_shape, microbatches=1, **model):
    """Of 20 steps of the smoke experiment on random latents."""
    config = configs.load(EXPERIMENT)
    config.model.update(model)
    learner = text_to_video.outline(config)
    mesh = make_mesh(*mesh_shape)
    boxed = jax.eval_shape(learner.init, jax.random.key(0))
    optimizer = make_optimizer(config.optimizer, STEPS, rules.axis_names(boxed))
    state = states.initialise(learner.init, optimizer, jax.random.key(0), mesh)
    rng = np.random.default_rng(0)
    result = []
    with jax.set_mesh(mesh), rules.in_force():
        step = make_step(learner.objective, optimizer, seed=0, ema_decay=0.9, microbatches=microbatches)
        step = jax.jit(step, donate_argnums=0)
        for number in range(STEPS):
            batch = {
                "latents": rng.normal(size=(8, *learner.row["latents"].shape)).astype(np.float32),
                "text": rng.integers(1, 200, size=(8, *learner.row["text"].shape)).astype(np.int32),
                "row": np.arange(8) + 8 * number,
            }
            batch = jax.device_put(batch, batch_sharding(mesh))
            state, metrics = step(state, batch)
            result.append(float(metrics["loss"]))
    return result, state


@pytest.fixture(scope="module")
def alone():
    return losses((1, 1, 1, 1))[0]


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_losses_are_those_of_one_device(shape, alone):
    np.testing.assert_allclose(losses(shape)[0], alone, rtol=0, atol=1e-5)


def test_microbatches_on_a_mesh_change_nothing(alone):
    np.testing.assert_allclose(losses((1, 2, 2, 2), microbatches=2)[0], alone, rtol=0, atol=1e-5)


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
