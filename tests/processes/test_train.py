"""A run of several processes is the run of one."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.processes.cluster import ROOT, together
from vidflow import train
from vidflow.training.telemetry import read_metrics

AUTOENCODER = f"--config={ROOT}/experiments/bounce/autoencoder.py:smoke"
TEXT_TO_VIDEO = f"--config={ROOT}/experiments/bounce/text_to_video.py:smoke"
# The smoke autoencoder learns so fast that its loss jumps, and with it every difference of rounding.
CALM = {"optimizer.learning_rate": 1e-3, "optimizer.decay": "constant", "data.clips": 16, "checkpoint.every": 4}
SPREAD = {"mesh.data": 2, "mesh.fsdp": 2}


def flags(options, inside=""):
    return [f"--config.{inside}{name}={value}" for name, value in options.items()]


def one_matrix(run, mesh, steps):
    """The command line of a run that trains an autoencoder for four steps, encodes clips and learns one matrix."""
    small = {"steps": 4, "model.widths": (8,), "model.strides": ()}
    inside = flags(CALM | mesh | small, inside="autoencoder.train.")
    outside = flags(CALM | mesh | {"steps": steps, "task": "tests.processes.one_matrix"})
    return [TEXT_TO_VIDEO, f"--workdir={run}", *outside, *inside]


def losses(run):
    return [line["loss"] for line in read_metrics(run)]


def assert_same_weights(one, other):
    one, other = load_file(one / "weights.safetensors"), load_file(other / "weights.safetensors")
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=0, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Eight steps in this process, on one device."""
    run = tmp_path_factory.mktemp("alone")
    train.main(one_matrix(run, {}, 8))
    return run


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The first four of these steps in two processes, and what they said."""
    run = tmp_path_factory.mktemp("pair")
    return run, together(2, "tests.processes.watched", *one_matrix(run, SPREAD, 4))


def test_two_processes_train_as_one_does(alone, pair):
    run, _ = pair
    np.testing.assert_allclose(losses(run / "autoencoder_run"), losses(alone / "autoencoder_run"), rtol=0, atol=1e-5)
    assert_same_weights(alone / "autoencoder", run / "autoencoder")
    np.testing.assert_allclose(losses(run), losses(alone)[:4], rtol=0, atol=1e-5)


def test_one_process_goes_on_with_what_two_began(alone, pair, tmp_path):
    run = shutil.copytree(pair[0], tmp_path / "run")
    together(1, "vidflow.train", *one_matrix(run, SPREAD, 8))
    assert len(losses(run)) == 8
    np.testing.assert_allclose(losses(run), losses(alone), rtol=0, atol=1e-5)
    assert_same_weights(alone, run)


def test_the_first_process_writes_and_speaks_alone(pair):
    run, outputs = pair
    first, second = (json.loads(output.partition("\nwrote ")[2].splitlines()[0]) for output in outputs)
    assert second == []
    for folder in (run, run / "autoencoder_run"):
        for name in ("config.json", "provenance.json", "metrics.jsonl", "finished.json"):
            assert str((folder / name).relative_to(run)) in first and (folder / name).exists(), name
        assert len(list((folder / "tensorboard").iterdir())) == 1
    assert {"weights.safetensors", "latents/latents.json", "autoencoder/autoencoder.json"} <= set(first)
    for word in ("INFO", "/4 ["):  # logs, progress bars
        assert word in outputs[0] and word not in outputs[1]
    assert json.loads((run / "provenance.json").read_text())["processes"] == 2


def test_a_refusal_reaches_every_process(alone, tmp_path):
    run = shutil.copytree(alone, tmp_path / "run")
    for output in together(2, "vidflow.train", *one_matrix(run, SPREAD, 8), "--config.seed=9", code=2):
        assert "vidflow: error:" in output and "seed = 0 and this config has 9: use another --workdir" in output


def test_a_mesh_that_leaves_a_process_out_is_refused(tmp_path):
    command = [AUTOENCODER, "--config.mesh.data=1", f"--workdir={tmp_path / 'run'}"]
    for output in together(2, "vidflow.train", *command, code=2):
        assert "does not cover the 4 device(s)" in output


# The transformer, which compiles for long


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Flags that name a trained autoencoder and encoded clips."""
    run = tmp_path_factory.mktemp("ready")
    inside = flags({"optimizer.learning_rate": 1e-3}, inside="autoencoder.train.")
    train.main([TEXT_TO_VIDEO, f"--workdir={run}", "--config.steps=1", *inside])
    return flags({"autoencoder.run": run, "data.source": "cache", "data.path": run / "latents"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "mesh"),
    [
        (2, {"data": 2, "fsdp": 2}),
        (4, {"fsdp": 2, "sequence": 2}),
        (4, {"sequence": 2, "tensor": 2}),
    ],
    ids=str,
)
def test_text_to_video_over_processes_is_that_of_one(ready, tmp_path, processes, mesh):
    options = [TEXT_TO_VIDEO, *ready, *flags(mesh, inside="mesh.")]
    one, several = tmp_path / "one", tmp_path / "several"
    together(1, "vidflow.train", *options, f"--workdir={one}")
    together(processes, "vidflow.train", *options, f"--workdir={several}", timeout=900)
    assert len(losses(one)) == 20
    np.testing.assert_allclose(losses(several), losses(one), rtol=0, atol=1e-5)
    assert_same_weights(one, several)


@pytest.mark.slow
def test_text_to_video_goes_on_with_other_processes(ready, tmp_path):
    options = [TEXT_TO_VIDEO, *ready, *flags(SPREAD), "--config.optimizer.decay=constant"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    together(1, "vidflow.train", *options, f"--workdir={whole}")
    together(2, "vidflow.train", *options, f"--workdir={parts}", "--config.steps=10", timeout=900)
    together(1, "vidflow.train", *options, f"--workdir={parts}")
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=0, atol=1e-5)
    assert_same_weights(whole, parts)
