"""Arms that differ in one value: which runs they need, and what they say of one another.

A file of experiments that is an ablation has, beside its get_config:

    def ablation():
        arms = (Arm("adaLN-Zero"), Arm("adaLN", {"model.design.time": "adaln"}))
        return Ablation(arms, matched="steps", rates=(2e-3, 4e-3, 8e-3))

The learning rate is tuned for each arm with the first seed; the other seeds train at the best of the rates.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow.errors import UsageError
from vidflow.tasks import planning, results, sweeping
from vidflow.tasks.results import RATE, Row
from vidflow.tasks.sweeping import Point
from vidflow.training.telemetry import read_metrics

Overrides = tuple[tuple[str, str], ...]
CURVE = 60  # points of a learning curve
SAME_SIZE = 0.02  # parts of the parameters by which arms of as many may differ


class Arm(NamedTuple):
    """A name, what is changed, by dotted name, and why it may be several values `together`, where it is. `arg` is for
    get_config, beside that of the command line."""

    name: str
    values: Mapping[str, Any] = {}
    together: str = ""
    arg: str = ""


class Ablation(NamedTuple):
    """What is compared, and how.

    Attributes:
      arms: the first is what the others are compared with.
      matched: what is equal among them: `steps` of training; `flops`, for which steps are made fewer or more; or
        `parameters` and steps, which the arms themselves see to.
      rates: of learning, tried with the first seed.
      measures: columns of the table: `loss`, or a name in evaluation.json.
      evaluation: flags of vidflow evaluate.
      seeds: how many.
      contrasts: by name, pairs of arms whose differences are averaged: the effect of one factor of several.
    """

    arms: tuple[Arm, ...]
    matched: Literal["steps", "flops", "parameters"]
    rates: tuple[float, ...]
    measures: tuple[str, ...] = ("loss", "bounce/colour", "bounce/shape", "bounce/direction")
    evaluation: tuple[str, ...] = ("--only=loss,samples",)
    seeds: int = 3
    contrasts: Mapping[str, Sequence[tuple[str, str]]] = MappingProxyType({})


class Planned(NamedTuple):
    """An arm: the values of its runs, matching included, and the config leaves that differ from the first arm's."""

    name: str
    spec: str
    values: dict[str, Any]
    changed: dict[str, Any]
    together: str


class Run(NamedTuple):
    """A point of an arm."""

    point: Point
    arm: Planned
    rate: float
    seed: int


def plan(spec: str, overrides: Overrides) -> tuple[Ablation, list[Planned]]:
    """The ablation of `FILE.py:arg`, checked.

    Raises:
      UsageError: fewer than two arms, two of one name, one that changes nothing or more than it says, arms that are not
        matched, a contrast of what is no arm, or an override of what the plan varies.
    """
    file, _, arg = spec.partition(":")
    ablation = configs.function(Path(file), "ablation", "def ablation() -> Ablation")()
    if len(ablation.arms) < 2 or ablation.seeds < 2 or not ablation.rates:
        raise UsageError(f"The ablation of {file} needs two arms, two seeds and one learning rate, or more of them.")
    names = [arm.name for arm in ablation.arms]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"Two arms of {file} have the name '{twice[0]}': give each its own.")
    contrasted = [name for pairs in ablation.contrasts.values() for pair in pairs for name in pair]
    if unknown := [name for name in contrasted if name not in names]:
        near = configs.nearest(unknown[0], names)
        raise UsageError(f"A contrast of {file} names '{unknown[0]}': did you mean '{near}'?")
    for key, where in ((RATE, "rates"), ("seed", "seeds")):
        if key in dict(overrides):
            raise UsageError(f"--config.{key} is for the ablation to vary: leave it out, or change {where} in {file}.")
    base, planned = ablation.arms[0], []
    specs = [f"{file}:{','.join(filter(None, (arg, arm.arg)))}" for arm in ablation.arms]
    found = [sweeping.point(spec, arm.values, overrides).config for spec, arm in zip(specs, ablation.arms, strict=True)]
    for spec, arm, config in zip(specs, ablation.arms, found, strict=True):
        changed = _differences(found[0], config)
        if arm is not base and len(changed) != 1 and not (changed and arm.together):
            what = f"in {', '.join(changed)}" if changed else "in nothing"
            raise UsageError(
                f"The arm '{arm.name}' of {file} differs from '{base.name}' {what}: change one value, or say why "
                "several belong `together`."
            )
        values = {**arm.values, **_matching(ablation.matched, arm, config, found[0])}
        planned.append(Planned(arm.name, spec.removesuffix(":"), values, changed, arm.together))
    return ablation, planned


def runs(ablation: Ablation, arms: Sequence[Planned], overrides: Overrides) -> list[Run]:
    """Every rate with every seed. Those of the first seed find the rate; of the others those at the best are wanted.

    Raises:
      UsageError: one run twice.
    """
    found = [
        Run(sweeping.point(arm.spec, {**arm.values, RATE: rate, "seed": seed}, overrides), arm, rate, seed)
        for arm in arms
        for rate in ablation.rates
        for seed in range(ablation.seeds)
    ]
    first: dict[str, Run] = {}
    for run in found:
        if (other := first.setdefault(run.point.folder, run)) is not run:
            raise UsageError(
                f"The ablation has one run twice, {other.point.name} of '{other.arm.name}' and {run.point.name} of "
                f"'{run.arm.name}': let its arms and its rates differ."
            )
    return found


def row(point: Point, arm: Planned, workdir: Path, evaluation: Sequence[str]) -> Row:
    """That of a sweep, with the `arm`, what it `changed`, and the `curve` of its training loss at `CURVE` steps; where
    samples are scored, what they show is `right`, and `prompts` how many there are behind each score."""
    (found,) = sweeping.rows(point, workdir, evaluation)
    folder = workdir / point.folder
    found |= {"arm": arm.name, "changed": arm.changed, "together": arm.together, "curve": _curve(folder)}
    samples = folder / "samples" / "scores.json"
    if not (evaluation and samples.exists()):
        return found
    shown, scores = json.loads(samples.read_text()), json.loads((folder / "evaluation.json").read_text())
    if not any(sample["scores"] for sample in shown):
        return found  # of videos whose truth nobody knows
    seeds = len({sample["seed"] for sample in shown})
    prompts = {name: score["n"] // seeds for name, score in scores.items() if name.startswith("bounce/")}
    return found | {"right": right(shown), "prompts": prompts}


def read(path: Path, ablation: Ablation) -> list[Row]:
    """The rows of a whole table, results.jsonl.

    Raises:
      UsageError: as `results.read`; a row of no arm of this ablation or without a measure of it, or an arm without the
        first seed.
    """
    rows, arms = results.read(path, needed=("parameters", "flops", "loss")), [arm.name for arm in ablation.arms]
    for row in rows:
        if "arm" not in row:
            raise UsageError(f"{path} has runs of no arm: it is of a sweep, for vidflow fit.")
        if row["arm"] not in arms:
            raise UsageError(f"{path} has an arm '{row['arm']}', which --config does not have: name its own file.")
    if missing := [arm for arm in arms if (arm, 0) not in {(row["arm"], row.get("seed")) for row in rows}]:
        raise UsageError(f"{path} has no run of '{missing[0]}' with the first seed: finish the ablation first.")
    results.require(rows, ablation.measures)
    return rows


def best_rate(arm: str, rows: Sequence[Row]) -> float:
    """Of an arm, by its rows of the first seed; a rate without a row has diverged.

    Raises:
      UsageError: no finite loss.
    """
    finite = [row for row in rows if row["arm"] == arm and row["seed"] == 0 and np.isfinite(row["loss"])]
    if not finite:
        raise UsageError(f"The arm '{arm}' has no finite loss at any learning rate: add smaller ones.")
    return min(finite, key=lambda row: row["loss"])["config"][RATE]


def right(samples: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Of rows of samples/scores.json, for each held-out clip and each seed of sampling the share of the attributes that
    the sample shows of those named. Arms that caption the same clips in other words have lists of one shape."""
    by_seed: dict[int, list[float]] = {}
    for sample in samples:
        by_seed.setdefault(sample["seed"], []).append(float(np.mean(list(sample["scores"].values()))))
    return [list(shares) for shares in zip(*by_seed.values(), strict=True)]


def _differences(base: ConfigDict, other: ConfigDict) -> dict[str, Any]:
    """The leaves of `other` that are not those of `base`."""
    before, after = configs.flatten(base), configs.flatten(other)
    names = sorted(before.keys() | after.keys())
    return {name: after.get(name) for name in names if before.get(name) != after.get(name)}


def _matching(matched: str, arm: Arm, config: ConfigDict, base: ConfigDict) -> dict[str, Any]:
    """The values that make an arm comparable."""
    if matched == "steps":
        return {}
    ours, theirs = (planning.job(some, "train", planning.make_mesh()) for some in (config, base))
    if matched == "flops":
        return {"steps": round(base.steps * theirs.model_flops / ours.model_flops)}
    if matched != "parameters":
        raise UsageError(f"An ablation is matched by steps, flops or parameters, not by '{matched}'.")
    if abs(ours.parameters / theirs.parameters - 1) > SAME_SIZE:
        raise UsageError(
            f"The arm '{arm.name}' has {ours.parameters:,} parameters and the first arm {theirs.parameters:,}: choose "
            f"sizes within {SAME_SIZE:.0%}, or match steps or flops."
        )
    return {}


def _curve(folder: Path) -> list[tuple[float, float]]:
    """(step, mean loss) of so many parts of the run."""
    losses = np.array([line["loss"] for line in read_metrics(folder)], float)
    parts = np.array_split(np.arange(len(losses)), min(CURVE, len(losses)))
    return [(float(part.mean()), float(losses[part].mean())) for part in parts]
