"""Checkpoints in the memory of hosts: newer than those on storage, and sent to a host that has lost its own."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.processes.cluster import together
from tests.reliability import driver
from vidflow.training.telemetry import read_metrics

STEPS = 40


def command(run):
    rest = ["--config.checkpoint.every=1000", "--config.checkpoint.local_every=3", "--config.log_every=1"]
    rest += ["--config.optimizer.learning_rate=1e-3", "--config.optimizer.decay=constant", "--config.data.clips=24"]
    rest += [f"--workdir={run}", "--config.checkpoint.local=memory", f"--config.steps={STEPS}"]
    return ["vidflow.train", f"--config={driver.EXPERIMENT}", "--config.mesh.data=2", "--config.mesh.fsdp=2", *rest]


def kill_all_after(run: Path, step: int):
    def kill(running):
        deadline = time.monotonic() + 200
        while len(read_metrics(run)) <= step and time.monotonic() < deadline:
            time.sleep(0.005)
        for child in running:
            child.send_signal(signal.SIGKILL)

    return kill


@pytest.mark.slow
def test_a_run_goes_on_from_the_memory_of_the_hosts(tmp_path):
    """Each process has a folder of its own, as hosts have; the one that does not write is given what the other has."""
    run, calm, hosts = tmp_path / "run", tmp_path / "calm", [tmp_path / "host0", tmp_path / "host1"]
    for host in hosts:
        host.mkdir()
    together(2, *command(calm), folders=hosts, timeout=100)
    together(2, *command(run), folders=hosts, timeout=100, code=-signal.SIGKILL, meanwhile=kill_all_after(run, 20))
    assert not list((run / "checkpoints").glob("[0-9]*"))  # nothing is on storage yet
    reached = len(read_metrics(run))
    (said, _) = together(2, *command(run), folders=hosts, timeout=100)
    saved = [step for step in range(0, reached + 1, 3) if f" {step}/{STEPS} [00:00<" in said]
    assert saved and saved[0] >= reached - 6, said[:2000]
    losses = [[line["loss"] for line in read_metrics(folder)] for folder in (run, calm)]
    np.testing.assert_array_equal(losses[0], losses[1])


def test_a_mesh_that_holds_the_state_once_is_refused(tmp_path):
    flags = [f"--workdir={tmp_path / 'run'}", f"--config.checkpoint.local={tmp_path / 'memory'}"]
    (said,) = together(1, "vidflow.train", f"--config={driver.EXPERIMENT}", *flags, code=2)
    assert "needs the whole state on different hosts" in said
