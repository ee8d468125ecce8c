"""No room left: one sentence, nothing half-written that is read as whole, and the run goes on when there is room."""

import os
import re
import shutil
import subprocess

import pytest

from tests.reliability import driver
from tests.tasks.experiments import TEXT_TO_VIDEO
from tests.tasks.test_bad_input import refusal
from vidflow import encode, report, train
from vidflow.data.latents_cache import LatentsSource
from vidflow.errors import UsageError
from vidflow.training.checkpoint import restore_ema

SIZE = 48  # MiB


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk, leave):
    """Takes all room but `leave` KiB."""
    free = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        file.write(bytes(free.f_bavail * free.f_frsize - leave * 1024))


@pytest.mark.slow
@pytest.mark.parametrize("leave", [400, 20], ids=["the state", "anything"])
def test_during_a_checkpoint(disk, tmp_path, leave):
    calm, run = tmp_path / "calm", disk / "run"
    driver.undisturbed(calm, "--config.steps=8")
    driver.undisturbed(run, "--config.steps=4")
    fill(disk, leave)
    child = driver.start(run, "--config.steps=8")
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 2, said
    # Beside what Orbax's threads say of each array, at times in the same line.
    (sentence,) = re.findall(r"vidflow: error: .*", said)
    assert "make room" in sentence
    (disk / "filler").unlink()
    assert restore_ema(run / "checkpoints")[1] == 4  # the checkpoint of before is the newest whole one
    driver.undisturbed(run, "--config.steps=8")
    assert driver.trajectory(run) == driver.trajectory(calm)
    assert driver.final_digests(run) == driver.final_digests(calm)


def test_during_an_encode(disk, smoke_run, capsys, monkeypatch):
    monkeypatch.setattr("vidflow.data.parts.SLICES", 16)
    out = disk / "cache"
    command = [f"--config={TEXT_TO_VIDEO}", f"--config.autoencoder.run={smoke_run}", f"--out={out}"]
    fill(disk, 30)
    assert "make room" in refusal(capsys, encode.main, *command)
    with pytest.raises(UsageError, match="no whole cache"):
        LatentsSource(out)
    assert not list(out.glob("*.tmp"))
    (disk / "filler").unlink()
    encode.main(command)
    assert len(LatentsSource(out)) == 64


def test_during_a_report(disk, smoke_run, capsys):
    run = disk / "run"
    shutil.copytree(smoke_run, run, ignore=shutil.ignore_patterns("checkpoints", "latents", "tensorboard"))
    report.main([f"--run={run}"])
    before = (run / "report.html").read_bytes()
    fill(disk, 8)
    assert "report.html" in refusal(capsys, report.main, f"--run={run}")
    assert (run / "report.html").read_bytes() == before


def test_before_a_run(disk, capsys):
    fill(disk, 0)
    assert "make room" in refusal(capsys, train.main, f"--config={TEXT_TO_VIDEO}", f"--workdir={disk / 'run'}")
