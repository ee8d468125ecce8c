"""The rows of a sweep, results.jsonl, as what laws are fitted to.

A row is one trained model: `parameters` (where it has `transformer_parameters`, without an encoder of text that is
trained along, laws are of these), `tokens`, `flops` (and `convention`, how they were counted, one of
`scaling.conventions`; `flops_by` has the others), `loss` (and `loss_of`, validation or training), `seed`, `commit` (the
last that trained it, and all as `commits`), `device`, what differs between rows, which is `arg` (of get_config) and
`config` (values by name), and any metric by its name.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidflow.config import nearest
from vidflow.errors import UsageError
from vidflow.scaling.isoflop import Points

Row = dict[str, Any]
NEEDED = ("parameters", "tokens", "flops", "loss")
RATE, BATCH = "optimizer.learning_rate", "batch_size"
EXPECTED = (RATE, BATCH, "steps", "seed", "model.size")  # to differ between the runs of a law


def read(path: Path, needed: Sequence[str] = NEEDED) -> list[Row]:
    """Raises UsageError: no such file, a line that is not a row with what is needed, no rows, or FLOPs counted in
    several ways."""
    if not path.is_file():
        raise UsageError(f"{path} is not there: --results is the results.jsonl of a sweep.")
    rows = _rows(path, needed)
    if not rows:
        raise UsageError(f"{path} has no finished point: wait for one, or look at the sweep's log.")
    for what, key in (("FLOPs counted as", "convention"), ("losses of", "loss_of")):
        ways = sorted({row.get(key, "unknown") for row in rows})
        if len(ways) > 1:
            raise UsageError(f"{path} mixes {what} {' and '.join(ways)}: fit each by itself.")
    return rows


def by_folder(path: Path) -> dict[str, list[Row]]:
    """The rows of results that are there already, by the folder of their run; none without a file.

    A folder is named by the digest of its config, so its rows stand for the run itself, wherever it was trained.
    """
    found: dict[str, list[Row]] = {}
    for row in _rows(path, ("flops", "loss")) if path.is_file() else []:
        found.setdefault(row.get("folder", ""), []).append(row)
    return found


def _rows(path: Path, needed: Sequence[str]) -> list[Row]:
    lines = path.read_text().splitlines()
    return [_row(path, number, line, needed) for number, line in enumerate(lines, 1) if line.strip()]


def _row(path: Path, number: int, line: str, needed: Sequence[str]) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        raise UsageError(f"{path} line {number} is not JSON: delete it, or write the file again.") from None
    for name in needed:
        value = row.get(name) if isinstance(row, dict) else None
        if not isinstance(value, int | float) or isinstance(value, bool) or (name != "loss" and not 0 < value < np.inf):
            raise UsageError(f"{path} line {number} needs a positive number as '{name}', and has {value!r}.")
    return row


def under(rows: Sequence[Row], convention: str) -> list[Row]:
    """The rows with FLOPs as that convention counts them.

    Raises:
      UsageError: a row that does not have it.
    """
    for row in rows:
        if convention != row.get("convention") and convention not in row.get("flops_by", {}):
            known = ", ".join(sorted({row.get("convention", "unknown"), *row.get("flops_by", {})}))
            raise UsageError(f"--convention={convention}: {row.get('name', 'a row')} has FLOPs only as {known}.")
    return [
        row if convention == row.get("convention") else row | {"flops": row["flops_by"][convention]} for row in rows
    ]


def commits_of(row: Row) -> list[str]:
    """All that trained it."""
    return row.get("commits", [row.get("commit", "unknown")])


def sound(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows whose loss is a number, and what a reader should know of the others and of these.

    Raises:
      UsageError: none is left.
    """
    kept = [row for row in rows if np.isfinite(row["loss"])]
    said = [f"left out {row.get('name', 'a run')}: its loss is {row['loss']}" for row in rows if row not in kept]
    commits = sorted({str(commit)[:12] for row in kept for commit in commits_of(row)})
    if len(commits) > 1:
        said.append(f"runs of {len(commits)} commits are mixed: {', '.join(commits)}")
    values: dict[str, set[str]] = {}
    for row in kept:
        for key, value in row.get("config", {}).items():
            values.setdefault(key, set()).add(str(value))
    varied = sorted(key for key, some in values.items() if len(some) > 1 and key not in EXPECTED)
    if varied:
        said.append(f"runs that differ in {', '.join(varied)} are fitted as one: are these other sizes, or other arms?")
    if not kept:
        raise UsageError("No run has a finite loss: look at their reports (vidflow report --run=...).")
    return kept, said


def tuned(rows: Iterable[Row]) -> list[Row]:
    """Of rows that differ in learning rate and batch size alone, the one of the least loss."""
    alike: list[list[Row]] = []
    by_key: dict[Any, list[list[Row]]] = {}
    for row in rows:
        own = by_key.setdefault(_all_but_tuned(row), [])
        group = next((group for group in own if _are_as_long(group[0], row)), None)
        if group is None:
            own.append(group := [])
            alike.append(group)
        group.append(row)
    return [min(group, key=lambda row: row["loss"]) for group in alike]


def _all_but_tuned(row: Row) -> tuple:
    config = row.get("config", {})
    tuned = (RATE, BATCH, "steps") if BATCH in config else (RATE,)  # other batches take other steps for their tokens
    others = {key: value for key, value in config.items() if key not in tuned}
    return row["parameters"], row.get("seed"), row.get("arg", ""), json.dumps(others, sort_keys=True)


def _are_as_long(one: Row, other: Row) -> bool:
    """Whether both have the same tokens, as nearly as whole steps allow."""
    step = sum(row["tokens"] / row.get("steps", np.inf) for row in (one, other)) / 2
    return bool(abs(one["tokens"] - other["tokens"]) <= (step if BATCH in one.get("config", {}) else 0))


def require(rows: Sequence[Row], metrics: Sequence[str]) -> None:
    """Raises UsageError: a metric that a row lacks."""
    for metric in metrics:
        for row in rows:
            if not isinstance(row.get(metric), int | float):
                near = nearest(metric, [key for key, value in row.items() if isinstance(value, float)])
                raise UsageError(f"{row.get('name', 'A row')} has no metric '{metric}': did you mean '{near}'?")


def parameters(row: Row) -> float:
    """Those that count as its size."""
    return float(row.get("transformer_parameters", row["parameters"]))


def points(rows: Sequence[Row], metrics: Sequence[str] = ()) -> Points:
    """Raises UsageError: a metric that a row lacks."""
    require(rows, metrics)
    sizes = np.array([parameters(row) for row in rows])
    columns = (np.array([float(row[name]) for row in rows]) for name in NEEDED[1:])
    return Points(sizes, *columns, {metric: np.array([float(row[metric]) for row in rows]) for metric in metrics})
