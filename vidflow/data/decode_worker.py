"""The process in which files are decoded: requests as lines of JSON on stdin, answers on stdout.

A request is {"call": "probe" or "read", "path": ..., "patience": seconds, and the arguments of that function of
`data.video`}. The answer is a line of JSON, {"error": sentence} or {"info": fields of VideoInfo}, or {} with the pixels
after it. The process ends itself when a request takes longer than its patience, when it would use more than `MEMORY`,
and when its parent is gone.
"""

import contextlib
import dataclasses
import json
import os
import resource
import select
import signal
import sys
import threading
from typing import Any, BinaryIO

from vidflow.data import video
from vidflow.errors import UsageError

MEMORY = 16 * 2**30  # bytes of address space, most of which no file touches


def main() -> None:
    """Answers until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.alarm(request.pop("patience"))  # its default action ends the process, even inside the decoder
        answer(request, answers)
        signal.alarm(0)


def end_with_the_parent() -> None:
    """Waits until nobody holds the other end of stdin, and ends the process whatever it is doing."""
    other_end = select.poll()
    other_end.register(sys.stdin.fileno(), 0)  # nothing but hanging up
    other_end.poll()
    os._exit(1)


def answer(request: dict[str, Any], answers: BinaryIO) -> None:
    """Decodes what is asked for and writes it, or why it cannot be."""
    call, path = request.pop("call"), request.pop("path")
    said: dict[str, Any] = {}
    pixels = b""
    try:
        if call == "probe":
            said["info"] = dataclasses.asdict(video.probe(path))
        else:
            pixels = video.read(path, **request).data
    except UsageError as error:
        said["error"] = str(error)
    except Exception as error:  # a library's surprise at a strange file is a property of that file
        said["error"] = f"{path} cannot be decoded ({type(error).__name__}: {error}): leave it out"
    answers.write(json.dumps(said).encode() + b"\n")
    answers.write(pixels)
    answers.flush()


if __name__ == "__main__":
    main()
