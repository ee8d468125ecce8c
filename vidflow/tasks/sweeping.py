"""The points of a sweep, and what a finished one says.

A file of experiments that can be swept has, beside its get_config:

    def sweep(add):
        for size in ("demo", "small"):
            for seed in range(3):
                add({"model.size": size, "seed": seed})

`add(values, arg="")` takes values by dotted name, and the argument of get_config.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow import limits
from vidflow.errors import UsageError
from vidflow.models.sizes import size
from vidflow.scaling import conventions
from vidflow.tasks import planning
from vidflow.tasks.results import Row
from vidflow.training.telemetry import read_metrics

SMOOTH = 0.1  # the loss of training is the mean over this last part of the steps


class Point(NamedTuple):
    """One run: `FILE.py:arg`, what all points and what it changes, the config that results, a name and a folder."""

    spec: str
    shared: tuple[tuple[str, str], ...]
    values: tuple[tuple[str, str], ...]
    config: ConfigDict
    name: str
    folder: str

    def command(self, workdir: Path) -> list[str]:
        """The arguments of vidflow train."""
        values = [f"--config.{key}={value}" for key, value in (*self.shared, *self.values)]
        return [f"--config={self.spec}", f"--workdir={workdir / self.folder}", *values]

    def commands(self, workdir: Path, evaluation: Sequence[str]) -> list[list[str]]:
        """The verbs that finish the point, each with its arguments."""
        train = ["train", *self.command(workdir)]
        return [train, ["evaluate", f"--run={workdir / self.folder}", *evaluation]] if evaluation else [train]


def points(file: str, overrides: tuple[tuple[str, str], ...] = ()) -> list[Point]:
    """What the file's `sweep` adds, in that order; `overrides` hold for every point.

    Raises:
      UsageError: no such function, a value that the config refuses, an override of what a point sets itself, a point
        twice, or none.
    """
    if ":" in Path(file).name:
        raise UsageError(f"--config={file} has an argument: the sweep in the file gives each point its own.")
    found: list[Point] = []

    def add(values: Mapping[str, Any], arg: str = "") -> None:
        new = point(file, values, overrides, arg)
        if own := [key for key, _ in overrides if key in values]:
            raise UsageError(f"--config.{own[0]} is for the sweep of {file} to set: leave it out, or change the sweep.")
        if same := [old.name for old in found if old.folder == new.folder]:
            raise UsageError(f"The sweep of {file} has one point twice: {same[0]} and {new.name}.")
        found.append(new)

    configs.function(Path(file), "sweep", "def sweep(add)")(add)
    if not found:
        raise UsageError(f"The sweep of {file} adds no point.")
    return found


def point(file: str, values: Mapping[str, Any], overrides: tuple[tuple[str, str], ...], arg: str = "") -> Point:
    """The run of the file's config with the overrides and then these values, which count where both set a key.

    Raises:
      UsageError: a value that the config refuses.
    """
    spec = f"{file}:{arg}" if arg else file
    said = tuple((key, _text(value)) for key, value in values.items())
    config = configs.override(configs.load(spec), [*overrides, *said])
    limits.check(config)
    name = ",".join([*filter(None, [arg]), *(f"{key}={value}" for key, value in said)]) or "as it is"
    return Point(spec, overrides, said, config, name, configs.digest(config)[:12])


def check_curve(points: Sequence[Point], curve: int) -> None:
    """Raises UsageError: a point whose rate decays or that is too short for so many rows."""
    for point in points:
        if point.config.optimizer.decay != "constant":
            raise UsageError(
                f"--curve={curve} takes the middle of a run for the end of a shorter one, and the rate of {point.name} "
                "decays: add --config.optimizer.decay=constant, or leave --curve out."
            )
        if point.config.steps < curve:
            raise UsageError(f"--curve={curve} is more than the {point.config.steps} steps of {point.name}: use fewer.")


def rows(point: Point, workdir: Path, evaluation: Sequence[str] = (), curve: int = 1) -> list[Row]:
    """The lines of results.jsonl for a finished point, evaluated with those flags: see `tasks.results`.

    With `curve` above 1 so many, at equal distances along the run, each as if the run had ended there: see
    `check_curve`. `loss` is that of validation, the same quantity for all flows, where that is
    asked for; else that of training, the mean of the last tenth of the steps but those skipped for want of a number.
    `loss_of` says which.
    """
    folder, config = workdir / point.folder, point.config
    job = planning.job(config, "train", planning.make_mesh())
    leaves = configs.flatten(config)
    others, transformer = _conventions(config, job)
    provenance = json.loads((folder / "provenance.json").read_text())
    starts = [*provenance.get("earlier", []), provenance]
    training = np.array([line["loss"] for line in read_metrics(folder)], float)  # None becomes NaN
    common: Row = {
        "name": point.name,
        "folder": point.folder,
        "parameters": job.parameters,
        **transformer,
        "convention": conventions.COUNTED,
        "evaluation": list(evaluation),
        "seed": config.seed,
        "commit": provenance["commit"],
        "commits": sorted({start["commit"] for start in starts}),
        "device": provenance["device"],
        "arg": point.spec.partition(".py:")[2],
        "config": {key: leaves[key] for key, _ in point.values},
    }
    result = []
    for part in range(1, curve + 1):
        steps = config.steps * part // curve
        last = training[steps - max(1, round(SMOOTH * steps)) : steps]
        taken = last[np.isfinite(last)]
        loss = float(taken.mean()) if len(taken) else np.nan
        amount = {"steps": steps, "tokens": (job.tokens or 0) * steps, "flops": (job.model_flops or 0.0) * steps}
        by = {name: value * config.batch_size * steps for name, value in others.items()}
        result.append(common | amount | {"flops_by": by} | {"loss": loss, "loss_of": "training"})
    if evaluation:
        scores = json.loads((folder / "evaluation.json").read_text())
        result[0] |= {name: value["mean"] for name, value in scores.items()}
        if "validation/flow_loss" in scores:
            loss = scores["validation/flow_loss"]["mean"]  # None, of a run that diverged
            result[0] |= {"loss": np.nan if loss is None else loss, "loss_of": "validation"}
    return result


def _conventions(config: ConfigDict, job: planning.Job) -> tuple[dict[str, float], dict[str, int]]:
    """FLOPs of training on a clip under each convention, and the parameters that they count; of a transformer alone."""
    if "sampling" not in config:
        return {}, {}
    counted = {part: value / config.batch_size for part, value in job.flops.items()}
    transformer = job.arguments[0].params["params"]["backbone"]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(transformer))
    tokens = job.tokens // config.batch_size
    found = conventions.training(counted, size(config.model.size), parameters=parameters, tokens=tokens)
    return found, {"transformer_parameters": parameters}


def _text(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value  # of numpy.geomspace
    return value if isinstance(value, str) else repr(value)
