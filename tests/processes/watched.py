"""vidflow train, saying at its end which paths of the run folder this process wrote to; checkpoints, which all write,
apart."""

import json
import os
import sys
from pathlib import Path

from vidflow import train

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.rename": 2}  # how many of the arguments are paths


def main(argv: list[str]) -> None:
    (workdir,) = (Path(word.partition("=")[2]) for word in argv if word.startswith("--workdir="))
    written: set[str] = set()

    def note(event: str, arguments: tuple) -> None:
        if event == "open" and arguments[2] & WRITES:
            paths = arguments[:1]
        else:
            paths = arguments[: CHANGES.get(event, 0)]
        for path in paths:
            path = Path(os.fsdecode(path)) if isinstance(path, str | bytes | Path) else Path()
            if path.is_relative_to(workdir) and "checkpoints" not in path.parts:
                written.add(str(path.relative_to(workdir)))

    sys.addaudithook(note)
    train.main(argv)
    print("wrote", json.dumps(sorted(written)))


if __name__ == "__main__":
    main(sys.argv[1:])
