"""Samples do not depend on the mesh that they are drawn on."""

import jax
import numpy as np
import pytest

from tests.tasks.experiments import TEXT_TO_VIDEO
from vidflow import config as configs
from vidflow.data.bounce import BounceSource
from vidflow.errors import UsageError
from vidflow.parallel import rules
from vidflow.parallel.mesh import batch_sharding, make_mesh
from vidflow.tasks import generation, text_to_video, validation
from vidflow.text import byte_tokens
from vidflow.training import run_folder

PROMPTS = ["a red star moves left", "a blue circle moves up", "", "a green square moves down and to the left"]


def latents(mesh):
    config = configs.load(TEXT_TO_VIDEO)
    learner = text_to_video.outline(config)
    sampler = generation.make_sampler(
        text_to_video.make_model(config), config, learner.row["latents"].shape, steps=4, guidance=3.0
    )
    text, empty = (byte_tokens.tokenize(some, config.text.length) for some in (PROMPTS, [""] * len(PROMPTS)))
    # A new model predicts zero: these are parameters of one that has learnt something.
    boxed = jax.eval_shape(learner.init, jax.random.key(0))
    fresh = jax.jit(lambda key: rules.unbox(learner.init(key)))(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: np.asarray(x) + 0.05 * rng.normal(size=x.shape).astype(np.float32), fresh)
    with rules.in_force(), jax.set_mesh(mesh):
        params = jax.device_put(params, rules.shardings(boxed, mesh))
        text, empty, rows = jax.device_put((text, empty, np.arange(len(PROMPTS))), batch_sharding(mesh))
        return np.asarray(jax.jit(sampler)(params, text, empty, jax.random.key(2), rows))


@pytest.mark.parametrize("shape", [(1, 2, 2, 2), pytest.param((1, 1, 8, 1), marks=pytest.mark.slow)], ids=str)
def test_a_mesh_changes_no_sample(shape):
    one, many = latents(make_mesh(1, 1, 1, 1)), latents(make_mesh(*shape))
    assert one.std() > 0.5 and not np.allclose(one[0], one[1], atol=0.1)
    np.testing.assert_allclose(many, one, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 2, 2, 1), pytest.param((1, 1, 2, 1), marks=pytest.mark.slow)], ids=str)
def test_a_run_is_sampled_and_scored_on_any_mesh(shape):
    """Its parameters lie in parts; three clips do not divide over the mesh, which is filled up."""
    held_out = BounceSource(run_folder.read_config(generation.REFERENCE).data, 0, "test")
    prompts, found = PROMPTS[:2] + PROMPTS[3:], []
    for mesh in (make_mesh(), make_mesh(*shape)):
        generator = generation.load(generation.REFERENCE, mesh)
        videos = generator(prompts, seed=0, steps=2, guidance=3.0, frames=8, height=40, width=40)
        found.append((videos, validation.flow_loss(generator, held_out, clips=3)["validation/flow_loss"].mean))
    parts = [x.size // np.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(generator.params)]
    assert max(parts) == np.prod(shape[1:])
    assert np.abs(found[0][0].astype(int) - found[1][0].astype(int)).max() <= 1
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((1, 1, 2, 2), "A projection of 50 tokens does not divide over the mesh axes sequence x tensor of 4"),
        ((1, 5, 1, 1), "A parameter of shape .* does not divide over the mesh .data=1, fsdp=5"),
        ((1, 16, 1, 1), "wants 16 device.s. and there are 8: ask for fewer"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused_in_a_sentence(shape, what):
    with pytest.raises(UsageError, match=what):
        generator = generation.load(generation.REFERENCE, make_mesh(*shape))
        generator(PROMPTS[:1], seed=0, steps=2, guidance=3.0, frames=8, height=40, width=40)
