"""What --distributed is told about the other processes."""

import os

import pytest

from tests.processes.cluster import ROOT, start
from vidflow import cli, train
from vidflow.startup import CLUSTER

COMMAND = (f"--config={ROOT}/experiments/bounce/autoencoder.py:smoke", "--distributed")


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (("localhost:1", "2", None), "JAX_COORDINATOR_ADDRESS is set and JAX_PROCESS_ID is not"),
        ((None, "2", "0"), "JAX_NUM_PROCESSES is set and JAX_COORDINATOR_ADDRESS is not"),
        (("localhost:1", None, "0"), "JAX_COORDINATOR_ADDRESS is set and JAX_NUM_PROCESSES is not"),
        (("localhost", "2", "0"), "JAX_COORDINATOR_ADDRESS is 'localhost': write HOST:PORT"),
        (("localhost:1", "2", "2"), "JAX_PROCESS_ID is '2' and JAX_NUM_PROCESSES '2'"),
        (("localhost:1", "two", "0"), "JAX_NUM_PROCESSES 'two'"),
    ],
)
def test_an_incomplete_or_wrong_set_of_variables_is_a_sentence(monkeypatch, capsys, tmp_path, cluster, message):
    for name, value in zip(CLUSTER, cluster, strict=True):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as exit_info:
        cli.run(train.main, [*COMMAND, f"--workdir={tmp_path / 'run'}"])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_no_cluster_at_all_is_a_sentence(tmp_path):
    with (tmp_path / "log").open("w+") as log:
        child = start("vidflow.train", *COMMAND, f"--workdir={tmp_path / 'run'}", environment={}, devices=1, log=log)
        assert child.wait(60) == 2
        log.seek(0)
        assert "vidflow: error: JAX finds no cluster for --distributed here: set JAX_COORDINATOR" in log.read()
