"""Weights out of runs and into others, by the real verbs."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.tasks.experiments import ROOT, TEXT_TO_VIDEO
from vidflow import export, sample, train
from vidflow.errors import UsageError
from vidflow.training.telemetry import read_metrics


@pytest.fixture
def out(tmp_path):
    return tmp_path / "weights.safetensors"


def test_the_newest_checkpoint_is_what_the_finished_run_samples_with(smoke_run, out, capsys):
    export.main([f"--run={smoke_run}", f"--out={out}"])
    exported, final = load_file(out), load_file(smoke_run / "weights.safetensors")
    assert exported.keys() == final.keys()
    assert all((exported[name] == final[name]).all() for name in final)
    assert "the averaged weights" in capsys.readouterr().out


def test_several_steps_are_averaged(smoke_run, out, tmp_path):
    for step in (15, 20):
        export.main([f"--run={smoke_run}", f"--step={step}", f"--out={tmp_path / f'{step}.safetensors'}"])
    export.main([f"--run={smoke_run}", "--step=15,20", f"--out={out}"])
    one, other, both = load_file(tmp_path / "15.safetensors"), load_file(tmp_path / "20.safetensors"), load_file(out)
    changed = 0
    for name, value in both.items():
        np.testing.assert_allclose(value, (one[name].astype(np.float64) + other[name]) / 2, rtol=1e-6, atol=1e-9)
        changed += (one[name] != other[name]).any()
    assert changed > 10


def test_an_exported_folder_samples_alone(smoke_run, tmp_path):
    folder, video = tmp_path / "mean", tmp_path / "x.mp4"
    export.main([f"--run={smoke_run}", f"--run={smoke_run}", f"--out={folder}"])
    assert json.loads(json.loads((folder / "provenance.json").read_text())["mean_of"]) == ["smoke at step 20"] * 2
    sample.main(["a red star", f"--run={folder}", f"--out={video}"])
    assert video.stat().st_size > 1000
    with pytest.raises(UsageError, match="is there and not empty: choose another"):
        export.main([f"--run={smoke_run}", f"--out={folder}"])
    trained = (smoke_run / "autoencoder" / "weights.safetensors").read_bytes()
    with pytest.raises(UsageError, match="autoencoder is there and not empty"):
        export.main([f"--run={smoke_run}", f"--out={smoke_run / 'autoencoder'}"])
    assert (smoke_run / "autoencoder" / "weights.safetensors").read_bytes() == trained
    with pytest.raises(UsageError, match="holds no checkpoints to choose from"):
        export.main([f"--run={folder}", "--step=20", f"--out={tmp_path / 'again'}"])


@pytest.mark.parametrize("name", ["taken/mean.safetensors", "taken/mean"])
def test_a_name_below_a_file_is_refused(smoke_run, tmp_path, name):
    (tmp_path / "taken").touch()
    with pytest.raises(UsageError, match="cannot be a folder"):
        export.main([f"--run={smoke_run}", f"--out={tmp_path / name}"])


def test_a_run_starts_from_an_exported_file_and_grows(smoke_run, out, tmp_path):
    """At a learning rate of nothing, the average after a step is what it started from."""
    export.main([f"--run={smoke_run}", f"--out={out}"])
    latents = tmp_path / "run" / "latents"
    shutil.copytree(smoke_run / "latents", latents)
    start = [f"--config={TEXT_TO_VIDEO}", f"--workdir={tmp_path / 'run'}", f"--config.autoencoder.run={smoke_run}"]
    still = ["--config.steps=1", "--config.optimizer.learning_rate=0.0", "--config.model.positions=8,16,16"]
    train.main([*start, *still, f"--config.init_from={out}"])
    before, after = load_file(out), load_file(tmp_path / "run" / "weights.safetensors")
    for name, value in before.items():
        if "positions" in name:
            continue
        np.testing.assert_array_max_ulp(after[name], value, maxulp=1)  # of rounding d x + (1 - d) x
    table = "params/backbone/positions/time"
    np.testing.assert_array_max_ulp(after[table][:4], before[table], maxulp=1)
    assert after[table].shape[0] == 8 and after[table.replace("time", "width")].shape[0] == 16
    # The loss is that of the trained model, not of a fresh one.
    assert read_metrics(tmp_path / "run")[0]["loss"] < read_metrics(smoke_run)[0]["loss"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--step=7"], "holds no checkpoint of step 7: .* one of its steps, 15, 20"),
        (["--best=loss"], "holds no checkpoint with a metric 'loss': .* one of its steps, 15, 20"),
        (["--step=1,x"], "--step=1,x is not a list of steps"),
        (["--step=5", "--best=loss"], "give one of them"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_a_sentence(smoke_run, out, flags, sentence):
    with pytest.raises(UsageError, match=sentence):
        export.main([f"--run={smoke_run}", *flags, f"--out={out}"])
    assert not out.exists()


def test_a_name_is_wanted(tmp_path):
    with pytest.raises(UsageError, match="--out is empty: name a file or a folder"):
        export.main([f"--encoder={tmp_path}", "--out="])


def test_weights_of_another_model_are_refused_by_their_first_difference(smoke_run, tmp_path):
    start = [f"--config={TEXT_TO_VIDEO}", f"--workdir={tmp_path / 'run'}", f"--config.autoencoder.run={smoke_run}"]
    cache = ["--config.data.source=cache", f"--config.data.path={smoke_run / 'latents'}"]
    with pytest.raises(UsageError, match=r"init_from=.* is of another model \('params/.*' is .* there and"):
        train.main([*start, *cache, "--config.model.size=demo", f"--config.init_from={smoke_run}"])
    assert not (tmp_path / "run" / "autoencoder").exists()  # before anything is made
    start[1] = f"--workdir={tmp_path / 'other'}"
    with pytest.raises(UsageError, match=r"config.init_from=.*/nothing is neither a run folder nor a file"):
        train.main([*start, *cache, f"--config.init_from={tmp_path / 'nothing'}"])
    assert not (tmp_path / "other" / "config.json").exists()  # the right path may be given for the same folder


def test_the_command_says_one_line(smoke_run, out):
    command = [sys.executable, "-m", "vidflow.export", f"--run={smoke_run}", f"--out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.stdout + done.stderr).splitlines() == [f"{out}: the averaged weights"]
