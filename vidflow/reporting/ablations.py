"""The table and the learning curves of an ablation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vidflow.metrics import intervals, paired
from vidflow.reporting import plots
from vidflow.tasks.results import RATE

Row = dict[str, Any]
LEGEND = (
    "Means over seeds with Student's 95% interval. Differences are of the same seed, with the probability of one as "
    "large if there is none; they are what to judge by, and none is corrected for how many there are. The rate is the "
    "best of {rates} with the first seed; * is an end of them. Net wins: of samples of the same prompt, how many show "
    "more of the named attributes than the first arm's, less how many show fewer."
)


def as_markdown(rows: Sequence[Row], matched: str) -> str:
    """A line an arm, those of the results of `vidflow ablate`; the first arm is what the others are compared with."""
    arms = {arm: [row for row in rows if row["arm"] == arm] for arm in dict.fromkeys(row["arm"] for row in rows)}
    rates = {arm: sorted({row["config"][RATE] for row in some if row["seed"] == 0}) for arm, some in arms.items()}
    kept = {arm: chosen(some) for arm, some in arms.items()}
    first = next(iter(kept))
    metrics = [name for name in kept[first][0] if name.startswith("bounce/")]
    loss = f"loss of {kept[first][0]['loss_of']}"
    head = ["arm", "changed", "seeds", "rate", "parameters", "FLOPs", loss, "difference", "p", "net wins", *metrics]
    lines = [f"| {' | '.join(head)} |", "|" + len(head) * "---|"]
    for arm, some in kept.items():
        lines.append(f"| {' | '.join(_cells(arm, some, kept[first], rates[arm], metrics))} |")
    tried = ", ".join(f"{rate:g}" for rate in next(iter(rates.values())))
    together = [f"{arm}: {some[0]['together']}" for arm, some in kept.items() if some[0]["together"]]
    commits = sorted({str(row["commit"])[:7] for row in rows})
    said = [f"Arms have equal {matched}.", LEGEND.format(rates=tried), *together, f"Commit: {', '.join(commits)}."]
    return "\n".join(lines) + "\n\n" + " ".join(said) + "\n"


def chosen(rows: Sequence[Row]) -> list[Row]:
    """Of one arm, a row a seed: those of the rate that was best with the first seed."""
    best = min((row for row in rows if row["seed"] == 0), key=lambda row: np.nan_to_num(row["loss"], nan=np.inf))
    return sorted((row for row in rows if row["config"][RATE] == best["config"][RATE]), key=lambda row: row["seed"])


def curves(rows: Sequence[Row], workdir: Path) -> Figure:
    """The training loss of every arm at its rate, the mean over seeds, smoothed."""
    figure = Figure((6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss of training", yscale="log")
    for index, arm in enumerate(dict.fromkeys(row["arm"] for row in rows)):
        seeds = [_losses(workdir / row["folder"]) for row in chosen([row for row in rows if row["arm"] == arm])]
        steps = min(map(len, seeds))
        mean = plots.smoothed(np.stack([np.arange(steps), np.mean([each[:steps] for each in seeds], axis=0)], axis=1))
        axes.plot(*mean.T, color=f"C{index}", label=arm, linewidth=1.2)
    axes.legend(frameon=False)
    return figure


def _cells(arm: str, some: list[Row], first: list[Row], rates: Sequence[float], metrics: Sequence[str]) -> list[str]:
    row, rate = some[0], some[0]["config"][RATE]
    changed = ", ".join(f"`{name}={value}`" for name, value in row["changed"].items()) or "–"
    end = "*" if len(rates) > 1 and rate in (rates[0], rates[-1]) else ""
    cells = [arm, changed, str(len(some)), f"{rate:g}{end}", f"{row['parameters']:,}", f"{row['flops']:.3g}"]
    cells += [_mean([each["loss"] for each in some])]
    cells += ["–", "–", "–"] if some is first else _against(some, first)
    return [*cells, *(_mean([each[name] for each in some]) if name in row else "–" for name in metrics)]


def _against(some: list[Row], first: list[Row]) -> list[str]:
    """Difference of the loss, its p, and net wins, over the seeds that both have."""
    pairs = [(a, b) for a in some for b in first if a["seed"] == b["seed"]]
    found = paired.difference(*zip(*((a["loss"], b["loss"]) for a, b in pairs), strict=True))
    loss = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    if not all("right" in row for pair in pairs for row in pair):
        return [loss, f"{found.p:.3f}", "–"]
    mean, low, high, _ = intervals.mean([paired.net_win_rate(a["right"], b["right"]) for a, b in pairs])
    return [loss, f"{found.p:.3f}", f"{mean:+.1%} [{low:+.1%}, {high:+.1%}]"]


def _mean(values: list[float]) -> str:
    mean, low, high, _ = intervals.mean(values)
    return f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def _losses(folder: Path) -> np.ndarray:
    return np.array([json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()])
