"""The losses that laws go through, as a table: sizes by budgets."""

from collections.abc import Iterable, Sequence

import numpy as np

from vidflow.scaling.isoflop import alike
from vidflow.tasks.results import RATE, Row, parameters


def as_markdown(tuned: Sequence[Row]) -> str:
    """The mean over seeds of the best of the rates, in brackets the rates and how many seeds, if several; the least of
    each budget stands out. A dash is where a size was not trained.

    Args:
      tuned: rows of which no two differ in their learning rate alone, as `results.tuned` gives.
    """
    flops = np.array([row["flops"] for row in tuned])
    budgets = [[tuned[place] for place in places] for places in alike(flops)]
    sizes = sorted({parameters(row) for row in tuned})
    cells = [_cells(rows, sizes) for rows in budgets]
    heads = [f"{np.exp(np.log([row['flops'] for row in rows]).mean()):.2g} FLOPs" for rows in budgets]
    lines = [["parameters", *heads], ["---"] * (1 + len(heads))]
    lines += [[f"{size:,.0f}", *(column[place] for column in cells)] for place, size in enumerate(sizes)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(rows: Sequence[Row], sizes: Iterable[float]) -> list[str]:
    """Of one budget, a cell a size."""
    trained = [[row for row in rows if parameters(row) == size] for size in sizes]
    means = [float(np.mean([row["loss"] for row in some])) if some else np.inf for some in trained]
    return [_cell(some, mean, mean == min(means)) for some, mean in zip(trained, means, strict=True)]


def _cell(rows: Sequence[Row], mean: float, least: bool) -> str:
    if not rows:
        return "–"
    rates = sorted({row["config"][RATE] for row in rows if RATE in row.get("config", {})})
    said = [f"{rate:g}" for rate in rates] + ([f"{len(rows)} seeds"] if len(rows) > 1 else [])
    return f"{mean:.3f}".join(("**", "**") if least else ("", "")) + (f" ({', '.join(said)})" if said else "")
