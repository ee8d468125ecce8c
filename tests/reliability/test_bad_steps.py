"""Steps that go wrong in a real run."""

import json

import pytest

from tests.reliability import driver
from vidflow import train
from vidflow.data import pipeline
from vidflow.errors import UsageError
from vidflow.training.checkpoint import restore_ema
from vidflow.training.telemetry import read_metrics


def command(run, *flags):
    return [f"--config={driver.EXPERIMENT}", f"--workdir={run}", "--config.data.clips=24", *flags]


def test_a_run_that_diverges_stops_and_keeps_what_was_good(tmp_path):
    """The rate of every step is absurd: the first update is finite, and nothing after it."""
    flags = ("--config.optimizer.learning_rate=1e30", "--config.optimizer.warmup=3", "--config.stability.max_skips=4")
    with pytest.raises(UsageError) as error:
        train.main(command(tmp_path, *flags, "--config.checkpoint.every=2", "--config.log_every=1"))
    lines = read_metrics(tmp_path)
    first = next(line["step"] for line in lines if line["skipped"])
    assert f"Steps {first} to {first + 3} were all skipped" in str(error.value)
    names = ", ".join(map(str, pipeline.indices(range(24), first, seed=0, batch_size=8)))
    assert f"Step {first} read examples {names}. The newest checkpoint is untouched" in str(error.value)
    assert lines[-1]["skipped"] == 4 and lines[-1]["loss"] is None
    assert restore_ema(tmp_path / "checkpoints")[1] <= first
    with pytest.raises(UsageError, match="were all skipped"):  # the same again, from there
        train.main(command(tmp_path, *flags, "--config.checkpoint.every=2", "--config.log_every=1"))


def test_a_skipped_step_is_counted_and_the_run_goes_on(tmp_path, monkeypatch):
    """One clip holds what no clip can hold."""
    from vidflow.training import loop

    real = loop.make_program

    def poisoned(config, learner, mesh):
        def objective(params, keys, batch):
            loss, metrics = learner.objective(params, keys, batch)
            return loss / (batch["index"] != 5).all(), metrics

        return real(config, learner._replace(objective=objective), mesh)

    monkeypatch.setattr(loop, "make_program", poisoned)
    train.main(command(tmp_path, "--config.steps=6", "--config.log_every=1"))
    with_five = [step for step in range(6) if 5 in pipeline.indices(range(24), step, seed=0, batch_size=8)]
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines if line["skipped_in_a_row"]] == with_five == [
        line["step"] for line in lines if line["loss"] is None
    ]
    assert lines[-1]["skipped"] == len(with_five) == 2
    assert json.loads((tmp_path / "finished.json").read_text())["steps"] == 6
