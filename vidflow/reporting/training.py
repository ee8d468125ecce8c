"""Curves of a run, and of the autoencoder under it if that left any."""

from pathlib import Path
from typing import Any

from vidflow.reporting import plots
from vidflow.reporting.inputs import Missing, Run, read_metrics, series
from vidflow.reporting.text import figure, keys, note, plain

BUCKETS = 10  # of flow time, as the objective of text to video reports them


def section(run: Run) -> str:
    """The panels as HTML; a sentence where no step is recorded."""
    if run.metrics:
        shown = _panels(run.metrics, "run")
    else:
        shown = note(Missing(f"There is no step in {run.folder / 'metrics.jsonl'} yet: curves come with training."))
    autoencoder = _autoencoder(run)
    return f"{shown}<h3>Its autoencoder</h3>{_panels(autoencoder, 'autoencoder')}" if autoencoder else shown


def _autoencoder(run: Run) -> list[dict[str, Any]]:
    """The metrics of the autoencoder that was trained inside the run, or of the run that its config names."""
    named = run.setting("autoencoder.run")
    inside = read_metrics(run.folder / "autoencoder_run")
    return inside or (read_metrics(Path(named)) if isinstance(named, str) and named else [])


def _panels(metrics: list[dict[str, Any]], whose: str) -> str:
    panels = [
        _panel(metrics, whose, "loss", "Loss"),
        _loss_by_time(metrics, whose),
        _panel(metrics, whose, "psnr", "PSNR in dB", scale="linear"),
        _panel(metrics, whose, "gradient_norm", "Gradient norm"),
        _panel(metrics, whose, "learning_rate", "Learning rate", scale="linear"),
        # The first step compiles, and would hide what the others do.
        _panel(metrics[1:], whose, "clips_per_second", "Clips per second", "after the first step", scale="from zero"),
    ]
    return f'<div class="panels">{"".join(panels)}</div>'


def _panel(
    metrics: list[dict[str, Any]],
    whose: str,
    name: str,
    title: str,
    more: str = "",
    scale: plots.Scale = "logarithmic",
) -> str:
    points = series(metrics, name)
    if not len(points):
        return ""
    last = f"{plain(float(plots.smoothed(points)[-1, 1]))} at the end"
    caption = f'{title} <span class="soft">{", ".join(filter(None, [last, more]))}</span>'
    return figure(plots.curve(f"{title} over steps, {whose}", points, scale), caption)


def _loss_by_time(metrics: list[dict[str, Any]], whose: str) -> str:
    lines, labels = [], []
    for index, colour in enumerate(plots.ramp(BUCKETS)):
        points = series(metrics, f"loss_by_time/{index}")
        if len(points):
            lines.append((colour, points))
            labels.append((colour, f"{index / BUCKETS:g} to {(index + 1) / BUCKETS:g}"))
    if not lines:
        return ""
    caption = 'Loss by flow time <span class="soft">0 is noise, 1 is data</span>'
    return figure(plots.curves(f"Loss by flow time over steps, {whose}", lines), caption, keys(labels))
