"""The ablation of autoencoders: each kind goes through training and evaluation, and none has more parameters."""

import importlib.util
import json

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


def test_the_table_compares_seed_by_seed(tmp_path):
    spec = importlib.util.spec_from_file_location("table", f"{ROOT}/experiments/autoencoder/table.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    for arm, psnrs in {"2.5d": (30.0, 32.0, 34.0), "3d": (31.0, 33.5, 34.5), "causal": (30.0,)}.items():
        for seed, psnr in enumerate(psnrs):
            folder = tmp_path / "bounce" / arm / str(seed)
            folder.mkdir(parents=True)
            scores = {"autoencoder/psnr": psnr, "autoencoder/ssim": psnr / 40, "floor/psnr": 21.0}
            (folder / "evaluation.json").write_text(json.dumps({name: {"mean": x} for name, x in scores.items()}))
    rows = module.table(tmp_path / "bounce").splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 2.5d", "| 3d"]  # one seed has no interval
    # Differences 1, 1.5 and 0.5: their mean, and 4.303 of Student's with two degrees of freedom times 0.5 / sqrt(3).
    assert rows[3].endswith("| +1.000 [-0.242, +2.242] |") and "| 33.000 [28.522, 37.478] |" in rows[3]
