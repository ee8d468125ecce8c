"""The ablation of autoencoders: each kind goes through training and evaluation, and none has more parameters."""

import jax
import jax.numpy as jnp
import pytest

from tests.tasks.experiments import ROOT
from vidflow import config as configs
from vidflow import evaluate, train
from vidflow.tasks import frozen_autoencoder

ABLATION = f"{ROOT}/experiments/autoencoder/ablation.py"
KINDS = ("2.5d", "3d", "causal")


def test_kinds_have_as_many_parameters_and_latents():
    counts, shapes = [], set()
    for kind in KINDS:
        module = frozen_autoencoder.make_model(configs.load(f"{ABLATION}:{kind}").model)
        params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3)))
        counts.append(sum(leaf.size for leaf in jax.tree.leaves(params)))
        shapes.add(module.compression.latent_shape(9, 32, 32))
    assert max(counts) < 1.025 * min(counts) and len(shapes) == 1


@pytest.mark.parametrize("kind", ["causal", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[:2])])
def test_each_kind_trains_and_is_scored(kind, tmp_path, capsys):
    flags = [f"--config={ABLATION}:{kind},smoke,outliers,consistency", "--config.steps=2"]
    train.main([*flags, f"--workdir={tmp_path}"])
    evaluate.main([f"--run={tmp_path}", "--clips=2"])
    assert "floor/psnr" in capsys.readouterr().out
