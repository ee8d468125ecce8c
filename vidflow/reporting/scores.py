"""The scores of a run, beside chance and beside what the reader can see at all."""

from typing import Any

from vidflow.reporting import plots
from vidflow.reporting.inputs import Missing, Run
from vidflow.reporting.text import clean, escape, estimate, figure, keys, note, part, percent, plain, table

YARDSTICKS = ("reader/", "chance/")  # what scores are held against
FRACTIONS = ("bounce/", *YARDSTICKS)  # names whose values are fractions of 1

# What stands beside the score of an attribute: its prefix in evaluation.json, its sign in the plot, its heading.
BESIDE = (
    ("chance/", "❘", "chance"),
    ("reader/ground_truth/", "◇", "reader on true clips"),
    ("reader/reconstruction/", "□", "reader on reconstructions"),
)


def headline(evaluation: dict[str, Any] | Missing) -> str:
    """One sentence with the score of each attribute, or nothing."""
    if isinstance(evaluation, Missing):
        return ""
    one_object = [name for name in _attributes(evaluation) if "/" not in name]
    means = [(name, part(evaluation[f"bounce/{name}"], "mean")) for name in one_object]
    shares = [f"{escape(name)} {percent(mean)}" for name, mean in means if mean is not None]
    which = " of one object" if len(one_object) < len(_attributes(evaluation)) else ""
    return f"Right in its samples{which}: {', '.join(shares)}." if shares else ""


def section(run: Run) -> str:
    """The tables and the plot as HTML and what the scores of clips are of, or how to make them."""
    evaluation = run.evaluation
    if isinstance(evaluation, Missing):
        return note(evaluation)
    if not evaluation:
        return '<p class="note">The evaluation holds no scores.</p>'
    attributes = _attributes(evaluation)
    used = {prefix + name for name in attributes for prefix in ("bounce/", *(prefix for prefix, *_ in BESIDE))}
    others = [name for name in evaluation if name not in used]
    panels = (_plot(evaluation, attributes) if attributes else "") + (_others(evaluation, others) if others else "")
    card = run.protocol.get("card") if isinstance(run.protocol, dict) else None
    said = f'<p class="note">{escape(card)}</p>' if card else ""
    return (_bounce(evaluation, attributes) if attributes else "") + f'<div class="panels">{panels}</div>{said}'


def fitting(name: str) -> Any:
    """How the values of that name are written: per cent or plain."""
    return percent if name.startswith(FRACTIONS) else plain


def _attributes(evaluation: dict[str, Any]) -> list[str]:
    return [name.removeprefix("bounce/") for name in evaluation if name.startswith("bounce/")]


def _label(attribute: str) -> str:
    return clean(attribute).replace("_", " ").replace("/", ": ")


def _beside(evaluation: dict[str, Any], attribute: str) -> list[float | None]:
    return [part(evaluation.get(prefix + attribute), "mean") for prefix, *_ in BESIDE]


def _bounce(evaluation: dict[str, Any], attributes: list[str]) -> str:
    rows = []
    for attribute in attributes:
        entry = evaluation[f"bounce/{attribute}"]
        score = [estimate(entry), plain(part(entry, "n"))]
        rows.append([escape(_label(attribute)), *score, *map(percent, _beside(evaluation, attribute))])
    return table(["attribute", "score, 95% interval", "n", *(heading for *_, heading in BESIDE)], rows)


def _plot(evaluation: dict[str, Any], attributes: list[str]) -> str:
    bars = []
    for attribute in attributes:
        entry = evaluation[f"bounce/{attribute}"]
        mean, low, high = (part(entry, name) for name in ("mean", "low", "high"))
        if mean is not None:
            ends = None if low is None or high is None else (low, high)
            bars.append(plots.Bar(_label(attribute), mean, ends, *_beside(evaluation, attribute)))
    if not bars:
        return ""
    legend = keys([("var(--accent)", "score and its 95% interval")]) + "".join(
        f'<span class="key sign"><b>{sign}</b> {heading}</span>' for _, sign, heading in BESIDE
    )
    return figure(plots.bars("Scores with intervals", bars), "Samples that are as the prompt says", legend)


def _others(evaluation: dict[str, Any], names: list[str]) -> str:
    entries = {name: evaluation[name] for name in names}
    rows = [[escape(name), estimate(each, fitting(name)), plain(part(each, "n"))] for name, each in entries.items()]
    return figure(table(["measure", "mean, 95% interval", "n"], rows), "Other measures")
