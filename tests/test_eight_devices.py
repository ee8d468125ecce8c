"""Runs tests/eight_devices in a process of its own: the number of simulated devices is fixed when JAX starts."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "eight_devices"


def test_everything_that_needs_eight_devices(request):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    marks = request.config.getoption("-m")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--durations=5", "-p", "no:cacheprovider", str(FOLDER)]
    done = subprocess.run(
        [*command, "-m", marks], env=os.environ | {"XLA_FLAGS": flags.strip()}, capture_output=True, text=True
    )
    print(done.stdout[-6000:], done.stderr[-2000:])
    assert done.returncode == 0
