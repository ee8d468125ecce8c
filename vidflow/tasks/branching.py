"""Runs of several lengths out of one: the points of a sweep that differ in `steps` alone go on from one another.

A run is a function of config and step, and its rate depends on its length only once it decays. So a run of "stable" or
"constant" rate has the bits of a longer one up to there (`optimizer.shared_steps`), and may begin with its checkpoint:
the results are those of runs from the start, at the cost of one run and the decays of the others.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vidflow import config as configs
from vidflow import files
from vidflow.tasks import frozen_autoencoder
from vidflow.tasks.sweeping import Point
from vidflow.training.optimizer import shared_steps
from vidflow.training.run_folder import PROVENANCE

METRICS = "metrics.jsonl"


def begin(point: Point, points: Sequence[Point], workdir: Path) -> int:
    """Gives a point that has not begun the latest checkpoint that another one shares with it; its step, or 0.

    Such checkpoints are there at the multiples of `config.checkpoint.keep_every`.
    """
    folder = workdir / point.folder
    if (folder / "checkpoints").exists():
        return 0
    steps = {step: other for other in points if _same(other, point) for step in _shared(point, other, workdir)}
    if not steps:
        return 0
    step = max(steps)
    source, partial = workdir / steps[step].folder, folder / "checkpoints.tmp"
    if "autoencoder" in point.config:  # what it learns from; another training of it may differ in the last bits
        frozen_autoencoder.copy(source / frozen_autoencoder.NAME, folder / frozen_autoencoder.NAME)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source / "checkpoints" / str(step), partial / str(step))
    lines = (source / METRICS).read_text().splitlines(keepends=True)
    (folder / METRICS).write_text("".join(lines[:step]))
    shutil.copyfile(source / PROVENANCE, folder / PROVENANCE)  # the start that made these steps; the next adds its own
    os.replace(partial, folder / "checkpoints")
    return step


def _same(one: Point, other: Point) -> bool:
    """Whether the configs differ in `steps` and in nothing else."""
    first, second = (configs.flatten(point.config) for point in (one, other))
    return one.folder != other.folder and first | {"steps": 0} == second | {"steps": 0}


def _shared(point: Point, other: Point, workdir: Path) -> list[int]:
    """Steps of the other's checkpoints up to which the two are one; none while it runs, and may delete them."""
    if files.is_held(workdir / other.folder):
        return []
    last = min(shared_steps(each.config.optimizer, each.config.steps) for each in (point, other))
    names = [path.name for path in (workdir / other.folder / "checkpoints").glob("*") if path.name.isdecimal()]
    return [step for step in map(int, names) if step <= last]
