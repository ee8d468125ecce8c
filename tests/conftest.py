"""Every test runs with the array shapes of vidflow's public functions checked, on the CPU."""

import os
from pathlib import Path

# Before anything imports jax, which reads its environment once. Compiling is most of the suite's time, and without
# optimisations takes half of it; JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests the very programs that runs compile.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "vidflow" / "xla"))
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
worker = os.environ.get("PYTEST_XDIST_WORKER")
if worker and hasattr(os, "sched_setaffinity"):  # workers that share their cores slow each other far more than twofold
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

import jaxtyping  # noqa: E402
import pytest  # noqa: E402

# Before anything imports vidflow, whose modules are checked as they are loaded.
jaxtyping.install_import_hook("vidflow", "beartype.beartype")


def pytest_collection_modifyitems(items):
    """The longest test first: last, it would keep one worker busy while the others wait."""
    items.sort(key=lambda item: item.path.name != "test_eight_devices.py")


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """A finished text-to-video run that trained its own autoencoder. Not to be written to."""
    from vidflow import train

    run = tmp_path_factory.mktemp("runs") / "smoke"
    experiment = Path(__file__).parents[1] / "experiments/bounce/text_to_video.py"
    train.main([f"--config={experiment}:smoke", f"--workdir={run}"])
    return run
