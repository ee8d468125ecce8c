"""Samples do not depend on the mesh that they are drawn on."""

import jax
import numpy as np
import pytest

from tests.tasks.experiments import TEXT_TO_VIDEO
from vidflow import config as configs
from vidflow.parallel import rules
from vidflow.parallel.mesh import batch_sharding, make_mesh
from vidflow.tasks import generation, text_to_video
from vidflow.text import byte_tokens

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
