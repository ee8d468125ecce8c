"""Cases in processes of their own.

Two frameworks in one process would fight for the device's memory, and the peak of one case would hide that of the next.
A case that runs out of memory, fails or hangs costs its own row and no other.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

from vidflow import cli

Row = dict[str, Any]
FLAG = "--child="  # followed by the cases as JSON; not for people
MARK = "row: "  # begins a line of a child's output that is a row
OUT_OF_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|out of memory|OutOfMemory|MemoryError|cannot allocate", re.IGNORECASE)

# The whole of the device's memory for either framework, and compile times that no cache of an earlier run shortens.
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
}


def measure(script: str, cases: list[Row], limit: float) -> list[Row]:
    """One row for each case, measured one after another in one process of `script`.

    A row is its case and what `run`'s second argument returned for it. A failed one has instead `error`, the first line
    of what was said, and `out_of_memory`, whether that is what it says.
    """
    command = [sys.executable, script, FLAG + json.dumps(cases)]
    # Files, not pipes: a compiler's own processes may hold a pipe open after the child is gone.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            code = subprocess.run(
                command, stdout=out, stderr=err, timeout=limit, env=ENVIRONMENT | os.environ
            ).returncode
            end = f"The process ended by signal {-code}" if code < 0 else f"The process ended with code {code}"
        except subprocess.TimeoutExpired:
            end = f"Given up after {limit:g} s"
        out.seek(0)
        rows = [json.loads(line.removeprefix(MARK)) for line in out if line.startswith(MARK)]
        err.seek(0)
        said = [line for line in err.read().splitlines() if line.strip()]
    lost = f"{end}: {said[-1]}" if said else f"{end}."
    return rows + [case | failure(lost) for case in cases[len(rows) :]]


def failure(text: str) -> Row:
    """What a row says of an error."""
    return {"error": text.strip().partition("\n")[0][:500], "out_of_memory": bool(OUT_OF_MEMORY.search(text))}


def exit_if_nothing_was_measured(rows: list[Row]) -> None:
    """Ends with code 1 if each of the rows is of a failure, or there is none."""
    if all("error" in row for row in rows):
        sys.exit(1)


def run(main: Callable[..., None], measure_one: Callable[[Row], Row]) -> None:
    """What a script does as `__main__`: `main`, or in a child `measure_one` on each of its cases."""
    if not sys.argv[1:] or not sys.argv[1].startswith(FLAG):
        cli.run(main)
        return
    for case in json.loads(sys.argv[1].removeprefix(FLAG)):
        try:
            row = case | measure_one(case)
        except Exception as error:
            traceback.print_exc()
            row = case | failure(f"{type(error).__name__}: {error}")
        print(MARK + json.dumps(row), flush=True)
