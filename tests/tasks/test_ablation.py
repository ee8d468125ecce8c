"""The ablation of autoencoders: each kind goes through training and evaluation, and none has more parameters."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.real_clips import real_clip
from tests.tasks.experiments import ROOT
from vidflow import config as configs
from vidflow import evaluate, train
from vidflow.data import video
from vidflow.data.sources import is_held_out, make_source
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_trains_and_is_scored(kind, tmp_path, capsys):
    flags = [f"--config={ABLATION}:{kind},smoke", "--config.steps=2"]
    losses = ["--config.losses.outliers=1e5", "--config.losses.consistency=0.01"]
    train.main([*flags, *losses, f"--workdir={tmp_path}"])
    evaluate.main([f"--run={tmp_path}", "--clips=2"])
    assert "floor/psnr" in capsys.readouterr().out


def script(name):
    spec = importlib.util.spec_from_file_location(name, f"{ROOT}/experiments/autoencoder/{name}.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def test_real_clips_of_training_and_test_are_other_moments_of_the_same_places(tmp_path):
    path = real_clip("carphone_pristine.mp4")
    script("real_clips").cut(path, tmp_path)
    data = configs.load(ABLATION).data
    data.update({"source": "folder", "path": f"{tmp_path}/train", "fps": 29.97})
    assert not is_held_out(data)
    data.test_path = f"{tmp_path}/test"
    train, test = (make_source(data, seed=0, split=split) for split in ("train", "test"))
    # 120 frames of 144 x 176 are 4 x 4 tiles; 90 frames are 10 clips of 9, and 30 are 3.
    assert is_held_out(data) and (len(train), len(test)) == (160, 48)
    whole = video.read(path, frames=91, height=128, width=128, fps=None)
    first = test[0]["video"][0].astype(float)
    errors = [np.abs(first - picture[:32, :32]).mean() for picture in whole]
    assert np.argmin(errors) == 90 and errors[90] < 4  # what H.264 loses
