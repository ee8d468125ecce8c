"""A driver that kills a real training process again and again, and remembers everything that it said."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidflow.training.telemetry import read_metrics

ROOT = Path(__file__).parents[2]
EXPERIMENT = f"{ROOT}/experiments/bounce/autoencoder.py:smoke"
# Every line reaches the file at once, and a checkpoint is never far: also not from the moment of a kill.
OFTEN = ("--config.log_every=1", "--config.checkpoint.every=4", "--config.data.clips=24")


def start(
    workdir: Path, *flags: str, devices: int = 1, before: Sequence[str] = (), **variables: str
) -> subprocess.Popen:
    """`vidflow train` of the small experiment as a process of its own, with more environment variables, and words
    before the command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **variables}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    verb = [sys.executable, "-m", "vidflow.train"]
    command = [*before, *verb, f"--config={EXPERIMENT}", f"--workdir={workdir}", *OFTEN, *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def undisturbed(workdir: Path, *flags: str, **around: Any) -> str:
    """Trains to the end; what the process said. `around` as for `start`."""
    child = start(workdir, *flags, **around)
    said, _ = child.communicate(timeout=300)
    assert child.returncode == 0, said
    return said


class Disturbed:
    """A run that is ended before its end. `seen` maps each step to the (loss, data) of every time it was taken."""

    def __init__(self, workdir: Path, steps: int, seed: int) -> None:
        self.workdir, self.steps, self.flags = workdir, steps, (f"--config.steps={steps}",)
        self.seen: dict[int, set[tuple[float, int]]] = {}
        self.kills: list[str] = []
        self._random = random.Random(seed)

    def end_in_the_middle(self, more: int, signals: Sequence[int] = (signal.SIGKILL,)) -> None:
        """Starts or resumes the run and ends it after some more steps: at once, with checkpoints so rare that it
        mostly falls between two, or as soon as one is being written. `more` ends are to come. One of the `signals` is
        drawn."""
        in_a_save = self._random.random() < 0.5
        rarely = () if in_a_save else ("--config.checkpoint.every=40",)
        child = start(self.workdir, *self.flags, *rarely)
        reached = max(self.seen, default=-1)
        # Steps for those that are to come must be left, each of which may wait for the next checkpoint and see it pass.
        beyond = reached + self._random.randint(1, max(1, 2 * (self.steps - reached) // (more + 2) - 8))
        deadline = time.monotonic() + 120
        while child.poll() is None and time.monotonic() < deadline:
            lines = read_metrics(self.workdir)
            if lines and lines[-1]["step"] >= beyond and (not in_a_save or self._is_saving()):
                break
            time.sleep(0.001)
        self.kills.append("in a save" if self._is_saving() else "between")
        number = self._random.choice(signals)
        child.send_signal(number)
        said, _ = child.communicate(timeout=60)
        assert child.returncode != 0, "the run finished before it could be killed"
        assert child.returncode == (75 if number == signal.SIGTERM else -number), said
        self.remember()

    def finish(self) -> None:
        """Resumes the run and lets it end."""
        undisturbed(self.workdir, *self.flags)
        self.remember()

    def remember(self) -> None:
        for line in read_metrics(self.workdir):
            self.seen.setdefault(line["step"], set()).add((line["loss"], line["data"]))

    def _is_saving(self) -> bool:
        folder = self.workdir / "checkpoints"
        return folder.is_dir() and any("tmp" in path.name for path in folder.iterdir())


def trajectory(workdir: Path) -> list[tuple[int, float, int]]:
    """Step, loss and data of every line."""
    return [(line["step"], line["loss"], line["data"]) for line in read_metrics(workdir)]


def final_digests(workdir: Path) -> dict[str, int]:
    """Of every array of the last checkpoint: parameters, moments, average, statistics, step."""
    steps = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    return json.loads((workdir / "checkpoints" / str(max(steps)) / "digests" / "metadata").read_text())
