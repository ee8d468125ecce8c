"""A real run on real files, whose decoders are ended again and again, or one of whose files breaks."""

import os
import shutil
import signal
import time

import pytest

from tests.data.test_decoders import helpers
from tests.real_clips import real_clip
from tests.reliability import driver
from vidflow.training.telemetry import read_metrics

NAMES = ("carphone_pristine.mp4", "carphone_distorted.mp4")


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(real_clip(name), folder)
        (folder / name).with_suffix(".txt").write_text("a man talks in a car")
    return folder


def flags(folder, steps=100):
    return ("--config.data.source=folder", f"--config.data.path={folder}", f"--config.steps={steps}")


@pytest.mark.slow
def test_decoders_that_are_killed_cost_no_batch(videos, tmp_path):
    driver.undisturbed(tmp_path / "calm", *flags(videos))
    child, killed, due = driver.start(tmp_path / "run", *flags(videos)), 0, 1
    while child.poll() is None:
        running = sorted(helpers(child.pid))
        # By steps, not by the clock, and the oldest: one that was started to try again is let be.
        if len(running) > 1 and len(read_metrics(tmp_path / "run")) >= due:
            os.kill(running[0], signal.SIGKILL)
            killed, due = killed + 1, due + 10
        time.sleep(0.01)
    said, _ = child.communicate()
    assert child.returncode == 0 and killed >= 3, said
    assert "no longer usable" not in said
    assert driver.trajectory(tmp_path / "run") == driver.trajectory(tmp_path / "calm")
    assert driver.final_digests(tmp_path / "run") == driver.final_digests(tmp_path / "calm")


@pytest.mark.slow
def test_a_file_that_breaks_while_a_run_reads_it_is_replaced_and_told(videos, tmp_path):
    run = tmp_path / "run"
    child = driver.start(run, *flags(videos, steps=200))
    while not read_metrics(run) and child.poll() is None:
        time.sleep(0.01)
    (videos / NAMES[1]).write_bytes(b"")
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 0, said
    assert "carphone_distorted.mp4 is no longer usable and its clips are replaced" in said
    again = driver.start(run, *flags(videos, steps=202))
    said, _ = again.communicate(timeout=60)
    assert again.returncode == 2
    assert "carphone_distorted.mp4 or its caption is not what it was when" in said
