"""What a report reads: a run folder at any stage of its life, and folders of samples.

Nothing here fails on a file that is absent, cut short or of another shape: in its place stands `Missing`, with a
sentence that the page shows.
"""

import json
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from vidflow.data import video
from vidflow.errors import UsageError
from vidflow.training import telemetry

MOST_SAMPLES = 32  # in one section; browsers refuse to hold many more players at once
MOST_BYTES = 48_000_000  # of video in one section


@dataclass(frozen=True)
class Missing:
    """Why something is not there, and the command that makes it, if there is one."""

    sentence: str
    command: str = ""


@dataclass(frozen=True)
class Sample:
    """One generated video. `scores` keep the values of the file; `mp4` is None if no frame of it can be decoded."""

    file: str
    prompt: str
    seed: str
    scores: dict[str, Any]
    mp4: bytes | None
    height: int
    width: int


@dataclass(frozen=True)
class Samples:
    """`shown` are the first of `grades`, which has the scores of every sample in the folder."""

    shown: tuple[Sample, ...]
    grades: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Run:
    """A run folder. `metrics` has one dict a step.

    `parameters` counts those of "model" and "autoencoder", where their weights are written.
    """

    name: str
    folder: Path
    config: dict[str, Any] | Missing
    provenance: dict[str, Any] | Missing
    metrics: list[dict[str, Any]]
    evaluation: dict[str, Any] | Missing
    protocol: dict[str, Any] | Missing
    samples: Samples | Missing
    parameters: dict[str, int]

    def setting(self, name: str) -> Any:
        """The config leaf with that dotted name, or None."""
        return leaves(self.config).get(name) if isinstance(self.config, dict) else None


def read_run(folder: Path) -> Run:
    """Reads what there is.

    Raises:
      UsageError: the folder is no run folder.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is no run folder (it has no config.json): name one made by vidflow train.")
    evaluate = command("evaluate", folder)
    config = _mapping(folder / "config.json")
    if isinstance(config, dict):
        config.pop("digest", None)  # of the file, not a setting
    samples = read_samples(folder / "samples", evaluate)
    if isinstance(samples, Missing) and isinstance(config, dict) and "sampling" not in config:
        samples = Missing("This run makes no samples: its config has no settings for sampling.")
    weights = {"model": folder / "weights.safetensors", "autoencoder": folder / "autoencoder" / "weights.safetensors"}
    return Run(
        name=folder.resolve().name,
        folder=folder,
        config=config,
        provenance=_mapping(folder / "provenance.json"),
        metrics=read_metrics(folder),
        evaluation=_mapping(folder / "evaluation.json", evaluate),
        protocol=_mapping(folder / "protocol.json"),
        samples=samples,
        parameters={name: size for name, path in weights.items() if (size := _parameters(path)) is not None},
    )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The readable lines of metrics.jsonl that have a step."""
    try:
        lines = telemetry.read_metrics(folder)
    except (OSError, ValueError):
        return []
    return [line for line in lines if number(line.get("step")) is not None]


def read_samples(folder: Path, making: str = "") -> Samples | Missing:
    """The samples that `folder/index.json` lists, in its order, and the scores of all, which `folder/scores.json` has;
    `making` is the command that makes them."""
    index = _json(folder / "index.json", making)
    if isinstance(index, Missing):
        return index
    if not isinstance(index, list) or not index or not all(isinstance(entry, dict) for entry in index):
        return Missing(f"{folder / 'index.json'} does not list samples.", making)
    shown: list[Sample] = []
    room = MOST_BYTES
    for entry in index[:MOST_SAMPLES]:
        sample = _sample(folder, entry)
        room -= len(sample.mp4 or b"")
        if room < 0 and shown:
            break
        shown.append(sample)
    rows = _json(folder / "scores.json")
    whole = isinstance(rows, list) and len(rows) >= len(index) and all(isinstance(row, dict) for row in rows)
    return Samples(tuple(shown), tuple(_scores(row) for row in (rows if whole else index)))


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data": {"fps": 8}} as {"data.fps": 8}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def number(value: Any) -> float | None:
    """`value` if it is a finite number; None for anything else, true and false included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def series(metrics: list[dict[str, Any]], name: str) -> Float[np.ndarray, "N 2"]:
    """(step, value) of every line that has a value of that name."""
    pairs = [(float(line["step"]), number(line.get(name))) for line in metrics]
    return np.array([pair for pair in pairs if pair[1] is not None], float).reshape(-1, 2)


def command(verb: str, folder: Path) -> str:
    """The command line of a verb that takes a run folder."""
    return f"python -m vidflow.{verb} --run={shlex.quote(str(folder))}"


def _json(path: Path, making: str = "") -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Missing(f"There is no {path} yet.", making)
    except OSError as error:
        return Missing(f"{path} cannot be read ({error.strerror}).", making)
    except ValueError:
        return Missing(f"{path} is not whole: it was cut short or is no JSON.", making)


def _mapping(path: Path, making: str = "") -> dict[str, Any] | Missing:
    value = _json(path, making)
    return value if isinstance(value, dict | Missing) else Missing(f"{path} does not hold names and values.", making)


def _sample(folder: Path, entry: dict[str, Any]) -> Sample:
    file = str(entry.get("file", ""))
    mp4, height, width = None, 1, 1
    if file and Path(file).name == file:  # an index copied from elsewhere must not pull in other files
        try:
            info = video.probe(folder / file)
            mp4, height, width = (folder / file).read_bytes(), info.height, info.width
        except (UsageError, OSError):
            pass
    prompt, seed = (str(entry.get(name, "")) for name in ("prompt", "seed"))
    return Sample(file, prompt, seed, _scores(entry), mp4, height, width)


def _scores(entry: dict[str, Any]) -> dict[str, Any]:
    scores = entry.get("scores")
    return scores if isinstance(scores, dict) else {}


def _parameters(path: Path) -> int | None:
    """The number of parameters in a safetensors file, from its header."""
    try:
        with safe_open(path, framework="numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    except (SafetensorError, OSError):
        return None
