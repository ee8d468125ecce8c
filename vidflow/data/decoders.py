"""Decoding video files in other processes: a file that crashes, stalls or swells the decoder costs that file alone."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

import vidflow
from vidflow.data.video import VideoInfo
from vidflow.errors import UsageError

PATIENCE = 60  # seconds for any file,
PER_MEBIBYTE = 4  # and for each MiB of it


class TooSlow(UsageError):
    """A file took more than this time: it would again."""


class Decoders:
    """`data.video.probe` and `data.video.read`, each call in a process of its own while it lasts.

    Processes are started when one is needed and none is idle, so there are as many as threads ever called at once.
    They end with this object and, however it ends, with this process.
    """

    def __init__(self) -> None:
        self._idle: list[subprocess.Popen] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _end, self._idle)

    def probe(self, path: Path) -> VideoInfo:
        """As `data.video.probe`.

        Raises:
          UsageError: as there, or the process that decoded the file died or had to be ended.
        """
        return VideoInfo(**self._ask(path, {"call": "probe"}, 0)[0]["info"])

    def read(self, path: Path, *, frames: int, height: int, width: int, **more: Any) -> UInt8[np.ndarray, "T H W 3"]:
        """As `data.video.read`.

        Raises:
          UsageError: as there, or the process that decoded the file died or had to be ended.
        """
        shape = (frames, height, width, 3)
        request = {"call": "read", "frames": frames, "height": height, "width": width, **more}
        return self._ask(path, request, int(np.prod(shape)))[1].reshape(shape)

    def _ask(self, path: Path, request: dict[str, Any], pixels: int) -> tuple[dict[str, Any], np.ndarray]:
        try:
            size = path.stat().st_size
        except OSError:  # of which the decoder will speak
            size = 0
        patience = PATIENCE + PER_MEBIBYTE * size // 2**20
        line = json.dumps({**request, "path": str(path), "patience": patience}).encode() + b"\n"
        with self._lock:
            process = self._idle.pop() if self._idle else None
        code = 0
        for number, helper in enumerate((process, None)):  # an idle process may have been ended by others: try anew
            helper = helper or _start()
            try:
                said, data = _exchange(helper, line, pixels)
            except (OSError, ValueError):
                code = _end([helper])
                if number or code == -signal.SIGALRM:
                    break
            else:
                with self._lock:
                    self._idle.append(helper)
                if "error" in said:
                    raise UsageError(said["error"])
                return said, data
        slow = code == -signal.SIGALRM
        cause = f"it took more than {patience} s" if slow else f"exit status {code}"
        kind = TooSlow if slow else UsageError
        raise kind(f"{path} ended the process that decoded it ({cause}): replace it or leave it out")


def _exchange(process: subprocess.Popen, line: bytes, pixels: int) -> tuple[dict[str, Any], np.ndarray]:
    """Asks and listens; raises OSError or ValueError where the process ended before it had answered."""
    process.stdin.write(line)
    process.stdin.flush()
    said = json.loads(process.stdout.readline())
    data = bytearray() if said else bytearray(process.stdout.read(pixels))
    if not said and len(data) != pixels:
        raise ValueError("the pixels end too early")
    return said, np.frombuffer(data, np.uint8)


def _start() -> subprocess.Popen:
    ours = str(Path(vidflow.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "vidflow.data.decode_worker"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _end(processes: list[subprocess.Popen]) -> int:
    """Ends the processes; the exit status of the last."""
    code = 0
    for process in processes:
        process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was not yet written has no reader
                pipe.close()
    return code
