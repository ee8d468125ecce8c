"""The tables and the learning curves of an ablation."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from vidflow.metrics import intervals, paired
from vidflow.reporting.scores import FRACTIONS
from vidflow.tasks.ablating import Ablation, best_rate
from vidflow.tasks.results import RATE, Row, commits_of

UNKNOWN = "–"
MEANS = (
    "Arms have equal {matched}. Means over seeds with Student's 95% interval. The rate is the best of {rates} with the "
    "first seed; * is an end of them. Loss is that of {loss_of}. Commit: {commits}. Device: {devices}."
)
SHARES = (
    "Intervals of shares (bounce/...) end at 0 and 1; where all seeds have the same share, they are Wilson's for the "
    "prompts of one."
)
DIFFERENCES = (
    "Differences from the first arm with the same seed, and the probability of one as large if there is none "
    "(Student's paired test, not corrected for how many there are): what to judge by. A dash is where all seeds differ "
    "by the same, which tells nothing of their spread."
)
WINS = (
    "Net wins: of samples of the same prompt, or of prompts about the same clip, how many show more of the named "
    "attributes than the first arm's, less how many show fewer."
)
LOST = "{arm} has {found} of {seeds} seeds: the others diverged at this rate, or have not run."
CONTRASTS = "What one change does in the mean of all pairs of arms that differ in it alone, seed by seed."


def as_markdown(rows: Sequence[Row], ablation: Ablation) -> str:
    """Tables of the results of `vidflow ablate`: of each arm its means and its differences from the first arm, and the
    contrasts that the ablation names."""
    kept = {arm.name: chosen(arm.name, rows) for arm in ablation.arms}
    first = next(iter(kept.values()))
    said = {
        "matched": ablation.matched.replace("flops", "FLOPs"),
        "rates": ", ".join(f"{rate:g}" for rate in ablation.rates),
        "loss_of": first[0]["loss_of"],
        "commits": ", ".join(sorted({_short(commit) for row in rows for commit in commits_of(row)})),
        "devices": ", ".join(sorted({str(row.get("device", "unknown")) for row in rows})),
    }
    means = [_means(arm, some, ablation) for arm, some in kept.items()]
    differences = [_differences(arm, [(some, first)], ablation) for arm, some in kept.items() if some is not first]
    contrasts = [
        _differences(name, [(kept[one], kept[other]) for one, other in pairs], ablation)
        for name, pairs in ablation.contrasts.items()
    ]
    shares, wins = any(measure.startswith(FRACTIONS) for measure in ablation.measures), "right" in first[0]
    columns = [*ablation.measures, *(["net wins"] if wins else [])]
    lines = [
        *_table(["arm", "changed", "seeds", "rate", "parameters", "FLOPs", *ablation.measures], means),
        "",
        " ".join([MEANS.format(**said), *([SHARES] if shares else []), *_together(kept), *_lost(kept, ablation.seeds)]),
        "",
        *_table(["arm", *columns], differences),
        "",
        " ".join([DIFFERENCES, *([WINS] if wins else [])]),
        "",
    ]
    return "\n".join(lines + ([*_table(["change", *columns], contrasts), "", CONTRASTS, ""] if contrasts else []))


def chosen(arm: str, rows: Sequence[Row]) -> list[Row]:
    """Of an arm, a row a seed: those of the rate that was best with the first seed.

    Raises:
      UsageError: no rate has a finite loss.
    """
    rate = best_rate(arm, rows)
    own = (row for row in rows if row["arm"] == arm and row["config"][RATE] == rate)
    return sorted(own, key=lambda row: row["seed"])


def curves(rows: Sequence[Row]) -> Figure:
    """The training loss of every arm at its rate, the mean over seeds."""
    figure = Figure((7, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss of training", yscale="log")
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter("{x:.3g}")
    for index, arm in enumerate(dict.fromkeys(row["arm"] for row in rows)):
        seeds = [row["curve"] for row in chosen(arm, rows)]
        axes.plot(*np.mean(seeds, axis=0).T, color=f"C{index}", label=arm, linewidth=1.2)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def _short(commit: object) -> str:
    number, _, dirty = str(commit).partition("-")
    return f"{number[:7]}-{dirty}" if dirty else number[:7]


def _together(kept: Mapping[str, list[Row]]) -> list[str]:
    """Why arms change several values, a sentence a reason."""
    by_reason: dict[str, list[str]] = {}
    for arm, some in kept.items():
        if len(some[0]["changed"]) > 1:
            by_reason.setdefault(some[0]["together"], []).append(arm)
    texts = {reason: arms[0] if len(arms) == 1 else f"{len(arms)} arms" for reason, arms in by_reason.items()}
    return [f"Several values are changed by {which}: {reason}." for reason, which in texts.items()]


def _lost(kept: Mapping[str, list[Row]], seeds: int) -> list[str]:
    """The arms of which seeds are missing, a sentence each."""
    return [
        LOST.format(arm=arm, found=len(some), seeds=seeds) for arm, some in kept.items() if len(some) < seeds
    ]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def _means(arm: str, some: list[Row], ablation: Ablation) -> list[str]:
    row, rate = some[0], some[0]["config"][RATE]
    # A tuple has become a list where rows were read from a file.
    leaves = {name: tuple(value) if isinstance(value, list) else value for name, value in row["changed"].items()}
    changed = ", ".join(f"`{name}={value}`" for name, value in leaves.items()) or "–"
    end = "*" if len(ablation.rates) > 1 and rate in (min(ablation.rates), max(ablation.rates)) else ""
    cells = [arm, changed, str(len(some)), f"{rate:g}{end}", f"{row['parameters']:,}", f"{row['flops']:.3g}"]
    for measure in ablation.measures:
        values = [each[measure] for each in some]
        prompts = row.get("prompts", {}).get(measure, len(row.get("right", ())))  # tables of before have the latter
        found = intervals.share(values, prompts) if measure.startswith(FRACTIONS) else intervals.mean(values)
        cells.append(_estimate(found.mean, found.low, found.high, ".4g"))
    return cells


def _estimate(mean: float, low: float, high: float, form: str) -> str:
    ends = UNKNOWN if np.isnan(low) else f"{low:{form}}, {high:{form}}"
    return f"{mean:{form}} [{ends}]"


def _differences(name: str, arms: Sequence[tuple[list[Row], list[Row]]], ablation: Ablation) -> list[str]:
    """Of pairs of arms, in their mean, over the seeds that all of them have."""
    seeds = sorted(set.intersection(*({row["seed"] for row in arm} for pair in arms for arm in pair)))
    pairs = [[tuple(row for arm in pair for row in arm if row["seed"] == seed) for pair in arms] for seed in seeds]
    cells = [name]
    for measure in ablation.measures:
        one, other = ([np.mean([pair[side][measure] for pair in some]) for some in pairs] for side in (0, 1))
        found = paired.difference(one, other)
        p = UNKNOWN if np.isnan(found.p) else f"{found.p:.2g}"
        cells.append(f"{_estimate(found.mean, found.low, found.high, '+.3g')}, p = {p}")
    if "right" in arms[0][0][0]:
        cells.append(_net_wins(pairs))
    return cells


def _net_wins(pairs: Sequence[Sequence[tuple[Row, Row]]]) -> str:
    """A dash for arms with samples of other clips, which have no common ones to compare."""
    if any(list(map(len, a["right"])) != list(map(len, b["right"])) for some in pairs for a, b in some):
        return UNKNOWN
    wins = [np.mean([paired.net_win_rate(a["right"], b["right"]) for a, b in some]) for some in pairs]
    found = intervals.mean(np.round(wins, paired.DIGITS))
    return _estimate(found.mean, found.low, found.high, "+.1%")
