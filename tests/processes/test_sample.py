"""Several processes sample and score a model that none of them has whole, as one does."""

import json
import shutil

import numpy as np
import pytest

from tests.processes.cluster import together
from vidflow.tasks import generation


def test_two_processes_sample_as_one_does(tmp_path):
    command = ["tests.processes.sampled", "a small red star moves slowly up and to the left", "--steps=4"]
    together(1, *command, f"--out={tmp_path / 'one.mp4'}")
    first, second = together(2, *command, f"--out={tmp_path / 'two.mp4'}", "--mesh=fsdp=2,sequence=2")
    one, two = (np.load(tmp_path / f"{name}.npy").astype(int) for name in ("one", "two"))
    assert one.shape == (8, 40, 40, 3) and one.std() > 10
    assert np.abs(one - two).max() <= 1  # of rounding
    assert "two.mp4: 8 frames of 40x40" in first and "two.mp4" not in second


def test_a_mesh_that_leaves_a_process_out_is_refused():
    for said in together(2, "vidflow.sample", "a red star", "--mesh=sequence=2", code=2):
        assert "--mesh=sequence=2 has to cover the 4 devices of all hosts" in said


@pytest.mark.slow
def test_two_processes_score_as_one_does(tmp_path):
    scores = []
    for count, mesh in ((1, "data=1"), (2, "data=2,sequence=2")):
        run = shutil.copytree(generation.REFERENCE, tmp_path / str(count))
        flags = ["--prompts=2", "--seeds=1", "--clips=16", "--only=loss,samples", f"--mesh={mesh}"]
        together(count, "vidflow.evaluate", f"--run={run}", *flags)
        scores.append(json.loads((run / "evaluation.json").read_text()))
        assert json.loads((run / "evaluated.json").read_text()) == flags[:-1]
    for name, value in scores[0].items():
        assert scores[1][name]["mean"] == pytest.approx(value["mean"], rel=1e-5), name
