"""What the frameworks find on this machine; as a script, prints it as JSON.

The benchmarks ask in a process of its own, because a framework that has looked at a device also holds its memory.
"""

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from vidflow import files
from vidflow.errors import UsageError

PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu", "flax", "optax")
PACKAGES += ("torch", "triton", "diffusers", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
PACKAGES += ("transformers", "tokenizers", "sentencepiece")
VARIABLES = ("XLA_", "LIBTPU_", "JAX_", "PYTORCH_", "TORCH", "CUDA_", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS")


def look(against: str | None) -> dict[str, Any]:
    """Devices, versions, commit, command and date: everything of a results file but the results.

    Raises:
      UsageError: torch is to be measured and is not there, or not on the device that JAX uses.
    """
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise UsageError(f"JAX does not start in {sys.executable} ({last}): install vidflow there, or use another.")
    here = json.loads(done.stdout.strip().rpartition("\n")[2])
    if against and here["torch"] is None:
        raise UsageError(f"--against=torch needs PyTorch in {sys.executable}: install it there, or leave the flag out.")
    if against and (here["torch"] == "cpu") != (here["platform"] == "cpu"):
        raise UsageError(
            f"--against=torch compares on one device, but JAX finds {here['device']} and PyTorch {here['torch']}: "
            "install both for the same one, or leave the flag out."
        )
    return here | {
        "commit": _commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
    }


def write(path: str | None, document: dict[str, Any]) -> None:
    """The results so far, as JSON; nothing without a path.

    Raises:
      UsageError: the file cannot be written.
    """
    if path is None:
        return
    files.make_folder(Path(path).parent)
    files.write_whole(Path(path), json.dumps(document, indent=1) + "\n")


def _commit() -> str:
    """Of the checkout that this file is in, `+` added where files differ from it; "unknown" outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return commit.stdout.strip() + "+" * bool(changed.stdout.strip()) if commit.returncode == 0 else "unknown"


def _devices() -> dict[str, Any]:
    import jax

    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "device": first.device_kind,
        "torch": _torch_device(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch_device() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    print(json.dumps(_devices()))
