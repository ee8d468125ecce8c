"""Runs tests/eight_devices in a process of its own: the number of simulated devices is fixed when JAX starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "eight_devices"


def run(marks):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--durations=5", "-p", "no:cacheprovider", str(FOLDER)]
    done = subprocess.run(
        [*command, "-m", marks], env=os.environ | {"XLA_FLAGS": flags.strip()}, capture_output=True, text=True
    )
    print(done.stdout[-6000:], done.stderr[-2000:])
    assert done.returncode == 0


def test_everything_that_needs_eight_devices():
    run("not slow")


@pytest.mark.slow
def test_everything_slow_that_needs_eight_devices():
    run("slow")
