"""Real processes on this machine that make up one run, with four simulated devices in all."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vidflow.startup import CLUSTER

ROOT = Path(__file__).parents[2]
DEVICES = 4


def together(
    processes: int,
    *arguments: str,
    timeout: float = 300,
    code: int = 0,
    devices: int = DEVICES,
    folders: Sequence[Path] = (),
    meanwhile: Callable[[list[subprocess.Popen]], None] = lambda running: None,
) -> list[str]:
    """What `python -m arguments...` says as each of that many processes of one run, which all must exit with `code`.

    The processes have `devices` devices in all. `folders` are those that they run in, else all in the root of the
    project. `meanwhile` is called while they run.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    clusters = [
        dict(zip(CLUSTER, (address, str(processes), str(index)), strict=True)) if processes > 1 else {}
        for index in range(processes)
    ]
    flags = ["--distributed"] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        logs = [(Path(folder) / str(index)).open("w+") for index in range(processes)]
        running = [
            start(*arguments, *flags, environment=cluster, devices=devices // processes, log=log, folder=folder)
            for cluster, log, folder in zip(clusters, logs, folders or [ROOT] * processes, strict=True)
        ]
        deadline = time.monotonic() + timeout
        try:
            meanwhile(running)
            codes = [child.wait(max(deadline - time.monotonic(), 0.1)) for child in running]
        finally:
            for child in running:
                child.kill()
                child.wait()
            outputs = [Path(log.name).read_text(errors="replace") for log in logs]
            for log in logs:
                log.close()
            print(*(output[-3000:] for output in outputs), sep="\n----\n")  # shown where a test fails
    assert codes == [code] * processes
    return outputs


def start(
    *arguments: str, environment: dict[str, str], devices: int, log, folder: Path = ROOT
) -> subprocess.Popen:
    """One process with its own devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "JAX_NUM_"))}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **environment}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
    )
