"""One smoke run of the whole main path, shared by the tests of this folder."""

from pathlib import Path

import pytest

from vidflow import train

ROOT = Path(__file__).parents[2]
TEXT_TO_VIDEO = f"{ROOT}/experiments/bounce/text_to_video.py:smoke"
AUTOENCODER = f"{ROOT}/experiments/bounce/autoencoder.py:smoke"


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """A finished text-to-video run that trained its own autoencoder. Not to be written to."""
    run = tmp_path_factory.mktemp("runs") / "smoke"
    train.main([f"--config={TEXT_TO_VIDEO}", f"--workdir={run}"])
    return run
