"""Every test runs with the array shapes of vidflow's public functions checked, on the CPU."""

import os
from pathlib import Path

# Before anything imports jax, which reads its environment once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "vidflow" / "xla"))

import jaxtyping  # noqa: E402
import pytest  # noqa: E402

# Before anything imports vidflow, whose modules are checked as they are loaded.
jaxtyping.install_import_hook("vidflow", "beartype.beartype")


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """A finished text-to-video run that trained its own autoencoder. Not to be written to."""
    from vidflow import train

    run = tmp_path_factory.mktemp("runs") / "smoke"
    experiment = Path(__file__).parents[1] / "experiments/bounce/text_to_video.py"
    train.main([f"--config={experiment}:smoke", f"--workdir={run}"])
    return run
