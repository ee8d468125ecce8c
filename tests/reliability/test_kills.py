"""A run that is killed again and again ends as if it had never been."""

import shutil
import signal
import subprocess
import time

import pytest
from safetensors.numpy import load_file

from tests.reliability import driver
from vidflow.training.telemetry import read_metrics

STEPS = 60


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    run = tmp_path_factory.mktemp("calm") / "run"
    driver.undisturbed(run, f"--config.steps={STEPS}")
    return run


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_change_nothing(kills, calm, tmp_path):
    steps = STEPS
    if kills > 5:
        steps, calm = 1000, tmp_path / "calm"
        driver.undisturbed(calm, f"--config.steps={steps}")
    run = driver.Disturbed(tmp_path / "run", steps, seed=kills)
    for number in range(kills):
        run.end_in_the_middle(more=kills - number - 1)
    run.finish()
    assert_same(run, calm)
    assert set(run.kills) == {"in a save", "between"}  # seen at the moment of the kill, not only meant


@pytest.mark.slow
def test_kills_and_requests_to_stop_in_any_order_change_nothing(tmp_path):
    driver.undisturbed(tmp_path / "calm", "--config.steps=300")
    run = driver.Disturbed(tmp_path / "run", 300, seed=1)
    for number in range(12):
        run.end_in_the_middle(more=11 - number, signals=(signal.SIGKILL, signal.SIGTERM))
    run.finish()
    assert_same(run, tmp_path / "calm")


def assert_same(run, calm):
    """Every step once in the end, as in the run that nobody disturbed, and the same whenever it was taken."""
    assert driver.trajectory(run.workdir) == driver.trajectory(calm)
    assert [line["step"] for line in read_metrics(run.workdir)] == list(range(run.steps))
    assert all(len(values) == 1 for values in run.seen.values()), run.seen
    assert driver.final_digests(run.workdir) == driver.final_digests(calm)
    weights = "autoencoder/weights.safetensors"
    one, other = load_file(run.workdir / weights), load_file(calm / weights)
    assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_a_run_told_to_stop_saves_says_so_and_goes_on(calm, tmp_path):
    run = driver.Disturbed(tmp_path / "run", STEPS, seed=0)
    child = driver.start(run.workdir, *run.flags, "--config.preemption_code=99")
    run.flags += ("--config.preemption_code=99",)
    while len(read_metrics(run.workdir)) < 6 and child.poll() is None:
        pass
    child.send_signal(signal.SIGTERM)
    said, _ = child.communicate(timeout=30)
    assert child.returncode == 99, said
    run.remember()
    saved = len(read_metrics(run.workdir))
    assert f"vidflow: Told to stop: saved step {saved} of {STEPS}; the same command goes on." in said
    assert (run.workdir / "checkpoints" / str(saved) / "commit_success.txt").exists()
    run.finish()
    assert_same(run, calm)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.0, 3.0], ids=["at once", "while it compiles"])
def test_a_run_told_to_stop_early_says_so_and_goes_on(calm, tmp_path, moment):
    child = driver.start(tmp_path / "run", f"--config.steps={STEPS}")
    while not (tmp_path / "run" / "config.json").exists() and child.poll() is None:
        time.sleep(0.01)
    time.sleep(moment)
    child.send_signal(signal.SIGTERM)
    said, _ = child.communicate(timeout=30)
    assert child.returncode == 75 and "vidflow: Told to stop: " in said and "the same command goes on" in said
    driver.undisturbed(tmp_path / "run", f"--config.steps={STEPS}")
    assert driver.trajectory(tmp_path / "run") == driver.trajectory(calm)


@pytest.mark.slow
def test_a_second_process_in_the_same_folder_is_refused(tmp_path):
    child = driver.start(tmp_path / "run", "--config.steps=5000")
    while not read_metrics(tmp_path / "run") and child.poll() is None:
        pass
    second = driver.start(tmp_path / "run", "--config.steps=5000")
    said, _ = second.communicate(timeout=60)
    child.kill()
    child.communicate()
    assert second.returncode == 2
    assert f"Another process (process {child.pid} on" in said and "use another folder" in said


@pytest.mark.slow
def test_time_zone_language_hash_seed_and_host_name_change_nothing(calm, tmp_path):
    around = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONHASHSEED": "12345"}
    elsewhere = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*elsewhere, "true"], capture_output=True).returncode:
        elsewhere = []  # without the right to change its name
    driver.undisturbed(tmp_path / "run", f"--config.steps={STEPS}", before=elsewhere, **around)
    assert driver.trajectory(tmp_path / "run") == driver.trajectory(calm)
    assert driver.final_digests(tmp_path / "run") == driver.final_digests(calm)
