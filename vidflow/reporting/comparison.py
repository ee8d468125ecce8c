"""What differs between runs: their configs, their scores, their losses."""

import json

from vidflow.reporting import plots
from vidflow.reporting.inputs import Missing, Run, leaves, series
from vidflow.reporting.scores import YARDSTICKS, fitting
from vidflow.reporting.text import escape, estimate, figure, keys, note, table


def section(run: Run, others: list[Run]) -> str:
    """Tables and a plot as HTML, the run itself first."""
    runs = [run, *others]
    names = [each.name for each in runs]
    if len(set(names)) < len(names):
        names = [str(each.folder) for each in runs]
    return _configs(runs, names) + _scores(runs, names) + _losses(runs, names)


def _configs(runs: list[Run], names: list[str]) -> str:
    unread = [each.config for each in runs if isinstance(each.config, Missing)]
    if unread:
        return note(unread[0])
    configs = [{key: json.dumps(value) for key, value in leaves(each.config).items()} for each in runs]
    rows = []
    for key in sorted({key for config in configs for key in config}):
        values = [config.get(key, "–") for config in configs]
        if len(set(values)) > 1:
            rows.append([f"<code>{escape(key)}</code>", *map(escape, values)])
    return table(["config", *map(escape, names)], rows) if rows else "<p>The configs are the same.</p>"


def _scores(runs: list[Run], names: list[str]) -> str:
    found = [each.evaluation if isinstance(each.evaluation, dict) else {} for each in runs]
    names_of_scores = dict.fromkeys(name for evaluation in found for name in evaluation)
    rows = [
        [escape(name), *(estimate(evaluation.get(name), fitting(name)) for evaluation in found)]
        for name in names_of_scores
        if not name.startswith(YARDSTICKS)
    ]
    if not rows:
        return "<p>None of these runs has scores yet.</p>"
    return table(["score, 95% interval", *map(escape, names)], rows)


def _losses(runs: list[Run], names: list[str]) -> str:
    lines, labels = [], []
    for index, (each, name) in enumerate(zip(runs, names, strict=True)):
        colour = plots.CATEGORIES[index % len(plots.CATEGORIES)]
        points = series(each.metrics, "loss")
        if len(points):
            lines.append((colour, points))
            labels.append((plots.css(colour), name))
    if not lines:
        return ""
    drawn = figure(plots.curves("Loss of the compared runs", lines), "Loss", keys(labels))
    return f'<div class="panels">{drawn}</div>'
