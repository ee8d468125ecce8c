"""The experiments of Movie Gen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks.experiments import ROOT
from vidflow import config as configs
from vidflow import train
from vidflow.tasks import text_to_video
from vidflow.tasks.prompts import make_prompts, without_prompt, without_some
from vidflow.text.stack import Encoder, TextStack

VIDEO = f"{ROOT}/experiments/moviegen/video.py"
TOKENS = {"256px-images": 256, "256px": 8_192, "768px": 73_728, "finetune": 73_728}


@pytest.mark.parametrize("stage", TOKENS)
def test_a_stage_has_the_papers_tokens(stage):
    config = configs.load(f"{VIDEO}:1b,{stage}")
    data, model = config.data, config.autoencoder.train.model
    compression = text_to_video.frozen_autoencoder.make_model(model).compression
    assert (compression.time, compression.height, compression.width, compression.channels) == (8, 8, 8, 16)
    shape = compression.latent_shape(data.frames, data.height, data.width)
    assert text_to_video.check_grid(config, shape).tokens == TOKENS[stage]


@pytest.mark.slow
def test_smoke(tmp_path):
    train.main([f"--config={VIDEO}:smoke", f"--workdir={tmp_path}/run"])
    assert (tmp_path / "run" / "finished.json").exists()


def embeddings(*encoders, rows=2, key=0):
    keys = jax.random.split(jax.random.key(key), len(encoders))
    return {
        encoder.name: {
            "embeddings": jax.random.normal(key, (rows, encoder.tokens, encoder.width)),
            "mask": jnp.arange(encoder.tokens) < jnp.array([[encoder.tokens], [1]]),
        }
        for encoder, key in zip(encoders, keys, strict=True)
    }


def test_a_stack_projects_and_normalises_each_encoder_and_keeps_its_padding():
    encoders = (Encoder("meaning", 3, 8), Encoder("letters", 2, 5))
    text = embeddings(*encoders)
    stack = TextStack(encoders, width=16)
    params = stack.init(jax.random.key(1), text)
    tokens, segment = stack.apply(params, text)
    assert tokens.shape == (2, 5, 16)
    np.testing.assert_array_equal(segment, [[1, 1, 1, 1, 1], [1, 0, 0, 1, 0]])
    kernel = params["params"]["letters_projection"]["kernel"].unbox()
    projected = text["letters"]["embeddings"] @ kernel
    wanted = (projected - projected.mean(-1, keepdims=True)) / projected.std(-1, keepdims=True)
    np.testing.assert_allclose(tokens[:, 3:], wanted, atol=1e-4)


def test_rows_without_a_prompt_have_no_real_token():
    config = configs.load(f"{VIDEO}:1b")
    made = make_prompts(config.text, 16, jnp.float32)
    assert (made.tokens, made.width) == (656, 16)
    empty = without_prompt(made, 2)
    full = jax.tree.map(lambda x: jnp.ones_like(x), empty)
    mixed = without_some(full, made.empty, dict.fromkeys(full, jnp.array([True, False])))
    for encoder in mixed.values():
        assert not encoder["mask"][0].any() and encoder["mask"][1].all()
