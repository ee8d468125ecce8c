"""The tables and the learning curves of an ablation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vidflow.metrics import intervals, paired
from vidflow.tasks.ablating import Ablation
from vidflow.tasks.results import RATE

Row = dict[str, Any]
MEANS = (
    "Arms have equal {matched}. Means over seeds with Student's 95% interval. The rate is the best of {rates} with the "
    "first seed; * is an end of them. Loss is that of {loss_of}. Commit: {commits}."
)
DIFFERENCES = (
    "Differences from the first arm with the same seed, and the probability of one as large if there is none "
    "(Student's paired test, not corrected for how many there are): what to judge by."
)
WINS = (
    "Net wins: of samples of the same prompt, how many show more of the named attributes than the first arm's, less "
    "how many show fewer."
)


def as_markdown(rows: Sequence[Row], ablation: Ablation) -> str:
    """Two tables of the results of `vidflow ablate`, a line an arm: means, and differences from the first arm."""
    arms = {arm: [row for row in rows if row["arm"] == arm] for arm in dict.fromkeys(row["arm"] for row in rows)}
    kept = {arm: chosen(some) for arm, some in arms.items()}
    first = next(iter(kept.values()))
    said = {
        "matched": ablation.matched,
        "rates": ", ".join(f"{rate:g}" for rate in ablation.rates),
        "loss_of": first[0]["loss_of"],
        "commits": ", ".join(sorted({str(row["commit"])[:7] for row in rows})),
    }
    together = [f"{arm} changes several values: {some[0]['together']}." for arm, some in kept.items()]
    together = [text for text, some in zip(together, kept.values(), strict=True) if some[0]["together"]]
    means = [_means(arm, some, ablation) for arm, some in kept.items()]
    differences = [_differences(arm, some, first, ablation) for arm, some in kept.items() if some is not first]
    wins = "right" in first[0]
    return "\n".join(
        [
            *_table(["arm", "changed", "seeds", "rate", "parameters", "FLOPs", *ablation.measures], means),
            "",
            " ".join([MEANS.format(**said), *together]),
            "",
            *_table(["arm", *ablation.measures, *(["net wins"] if wins else [])], differences),
            "",
            " ".join([DIFFERENCES, *([WINS] if wins else [])]),
            "",
        ]
    )


def chosen(rows: Sequence[Row]) -> list[Row]:
    """Of one arm, a row a seed: those of the rate that was best with the first seed."""
    best = min((row for row in rows if row["seed"] == 0), key=lambda row: np.nan_to_num(row["loss"], nan=np.inf))
    return sorted((row for row in rows if row["config"][RATE] == best["config"][RATE]), key=lambda row: row["seed"])


def curves(rows: Sequence[Row]) -> Figure:
    """The training loss of every arm at its rate, the mean over seeds."""
    figure = Figure((6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss of training", yscale="log")
    for index, arm in enumerate(dict.fromkeys(row["arm"] for row in rows)):
        seeds = [row["curve"] for row in chosen([row for row in rows if row["arm"] == arm])]
        axes.plot(*np.mean(seeds, axis=0).T, color=f"C{index}", label=arm, linewidth=1.2)
    axes.legend(frameon=False)
    return figure


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def _means(arm: str, some: list[Row], ablation: Ablation) -> list[str]:
    row, rate = some[0], some[0]["config"][RATE]
    changed = ", ".join(f"`{name}={value}`" for name, value in row["changed"].items()) or "–"
    end = "*" if len(ablation.rates) > 1 and rate in (min(ablation.rates), max(ablation.rates)) else ""
    cells = [arm, changed, str(len(some)), f"{rate:g}{end}", f"{row['parameters']:,}", f"{row['flops']:.3g}"]
    for measure in ablation.measures:
        mean, low, high, _ = intervals.mean([each[measure] for each in some])
        cells.append(f"{mean:.4g} [{low:.4g}, {high:.4g}]")
    return cells


def _differences(arm: str, some: list[Row], first: list[Row], ablation: Ablation) -> list[str]:
    """Over the seeds that both have."""
    pairs = [(a, b) for a in some for b in first if a["seed"] == b["seed"]]
    cells = [arm]
    for measure in ablation.measures:
        found = paired.difference(*zip(*((a[measure], b[measure]) for a, b in pairs), strict=True))
        cells.append(f"{found.mean:+.3g} [{found.low:+.3g}, {found.high:+.3g}], p = {found.p:.2g}")
    if "right" in first[0]:
        mean, low, high, _ = intervals.mean([paired.net_win_rate(a["right"], b["right"]) for a, b in pairs])
        cells.append(f"{mean:+.1%} [{low:+.1%}, {high:+.1%}]")
    return cells
