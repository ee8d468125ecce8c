"""A run that moves to other devices, or is told to stop on several hosts."""

import shutil
import signal
import time

import numpy as np
import pytest

from tests.processes.cluster import together
from tests.reliability import driver
from vidflow.training.telemetry import read_metrics

# The smoke experiment learns so fast that its loss jumps, and with it every difference of rounding.
CALM = ("--config.optimizer.learning_rate=1e-3", "--config.optimizer.decay=constant")
FIRST, LAST = 10, 20


def command(run, steps):
    return [
        "vidflow.train",
        f"--config={driver.EXPERIMENT}",
        f"--workdir={run}",
        *driver.OFTEN,
        *CALM,
        f"--config.steps={steps}",
    ]


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory):
    """A run of ten steps on eight devices, and the same one gone on to twenty on them."""
    first = tmp_path_factory.mktemp("eight") / "first"
    together(1, *command(first, FIRST), devices=8)
    whole = shutil.copytree(first, first.with_name("whole"))
    together(1, *command(whole, LAST), devices=8)
    return first, whole


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices"), [(1, 1), (1, 2), (1, 4), (2, 8)])
def test_a_run_goes_on_elsewhere(on_eight, tmp_path, processes, devices):
    """Restoring compares every array, bit for bit, with the digests that eight devices wrote."""
    first, whole = on_eight
    run = shutil.copytree(first, tmp_path / "run")
    (output, *_) = together(processes, *command(run, LAST), devices=devices)
    assert "damaged" not in output
    moved, stayed = driver.trajectory(run), driver.trajectory(whole)
    assert [step for step, *_ in moved] == list(range(LAST))
    assert [data for *_, data in moved] == [data for *_, data in stayed]  # the same clips in the same rows
    np.testing.assert_allclose([loss for _, loss, _ in moved], [loss for _, loss, _ in stayed], rtol=0, atol=1e-5)
    assert moved[:FIRST] == stayed[:FIRST]


@pytest.mark.slow
def test_all_hosts_stop_together_when_one_is_told(tmp_path):
    run = tmp_path / "run"

    def tell_the_second(running):
        deadline = time.monotonic() + 200
        while len(read_metrics(run)) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        running[1].send_signal(signal.SIGTERM)

    outputs = together(2, *command(run, 100_000), code=75, meanwhile=tell_the_second)
    saved = len(read_metrics(run))
    for output in outputs:
        assert f"vidflow: Told to stop: saved step {saved} of 100000; the same command goes on." in output
    together(2, *command(run, saved + 2))
    assert [line["step"] for line in read_metrics(run)] == list(range(saved + 2))
