"""The folder of a run: its config, where it came from, its metrics, its weights.

    runs/<name>/config.json      the resolved config        metrics.jsonl   one line a step
                provenance.json  commit, versions, command  checkpoints/    Orbax
                weights.safetensors  averaged weights, once finished        samples/ report.html evaluation.json
                finished.json, evaluated.json   for how many steps, and with which flags
                evaluation_900.json, samples_900   of a run that was finished after 900 steps, and trained further
                evaluation_unfinished.json   and so on, of a checkpoint before its end
"""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

import vidflow
from vidflow import config as configs
from vidflow import files
from vidflow.errors import UsageError
from vidflow.training import hosts

# What may differ when a run resumes: how long it is, and where and how, not what, it computes and keeps.
FREE = ("steps", "mesh", "rules", "host_memory", "microbatches", "log_every", "checkpoint", "preemption_code")
FREE += ("data.threads", "data.max_bad", "data.test_path")
FREE += ("model.remat", "model.saved", "model.kernel", "model.strategy")
FREE += ("sampling.batch",)  # rows that are sampled at a time do not see one another
FREE += ("text.cache", "text.encoders.*.path")  # the caches hold the digests of the encoders
UNTIL_SAVED = ("text.length",)  # found too short by the captions, which come with the latents

PROVENANCE = "provenance.json"
FINISHED, EVALUATED = "finished.json", "evaluated.json"
SCORES = ("evaluation.json", "protocol.json", "samples")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av", "ml-collections")


def prepare(folder: Path, config: ConfigDict) -> None:
    """Makes the folder of a new run, or checks that an existing one belongs to `config`. Unless that is finished, it
    notes where this start comes from.

    Raises:
      UsageError: the folder holds a run of another config (naming the first difference) or of more steps, or a new
        run's `init_from` is nothing. What `FREE` lists may differ: a finished run can be trained further, and any run
        can move to another mesh.
    """
    hosts.on_first(_prepare, folder, config)


@contextmanager
def beginning(folder: Path) -> Iterator[None]:
    """Around all that a command makes of a run: if it is refused before that is anything, the folder holds no run of
    its config, and the corrected command can have it."""
    new = not (folder / "config.json").exists()
    try:
        yield
    except UsageError:
        if new and hosts.is_first() and _made(folder) <= {"config.json", PROVENANCE}:
            (folder / "config.json").unlink(missing_ok=True)
            (folder / PROVENANCE).unlink(missing_ok=True)
        raise


def _made(folder: Path) -> set[str]:
    """The files under a folder that are not hidden, as locks are."""
    found = (path for path in folder.rglob("*") if not path.is_dir() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix() for path in found}


def _prepare(folder: Path, config: ConfigDict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "config.json").exists():
        _check_same(read_config(folder), config, folder)
        if (taken := _finished_steps(folder) or 0) > config.steps:
            raise UsageError(f"{folder} has taken {taken} steps already: set --config.steps to no fewer.")
    elif config.init_from and not Path(config.init_from).exists():
        raise UsageError(f"config.init_from={config.init_from} is neither a run folder nor a file: correct it.")
    write_config(folder, config)
    if is_finished(folder, config.steps):
        return  # nothing is left to train: what made the run is not this process
    _set_scores_aside(folder, config.steps)
    files.write_whole(folder / PROVENANCE, json.dumps(_with_earlier(folder, provenance()), indent=2) + "\n")


def _set_scores_aside(folder: Path, steps: int) -> None:
    """Of a run that is trained further: its scores and samples, which are of the weights that it had, get the number of
    their steps in their names, if it had finished."""
    before = _finished_steps(folder)
    if before is None:
        _rename_scores(folder, "unfinished")
    if before is None or before >= steps:
        return
    _rename_scores(folder, str(before))
    (folder / FINISHED).unlink()


def _rename_scores(folder: Path, suffix: str) -> None:
    (folder / EVALUATED).unlink(missing_ok=True)
    for path in filter(Path.exists, (folder / name for name in SCORES)):
        aside = path.with_stem(f"{path.stem}_{suffix}")
        shutil.rmtree(aside, ignore_errors=True)  # samples of the same weights, or of older ones
        path.rename(aside)


def is_finished(folder: Path, steps: int) -> bool:
    """Whether the run has been trained for `steps` steps and its artefacts are written."""
    return _finished_steps(folder) == steps


def _finished_steps(folder: Path) -> int | None:
    try:
        return json.loads((folder / FINISHED).read_text(encoding="utf-8"))["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def mark_finished(folder: Path, steps: int) -> None:
    """Says so; called after everything else is written. Scores that are there are of a checkpoint before the end."""
    if not is_finished(folder, steps):
        _rename_scores(folder, "unfinished")
    files.write_whole(folder / FINISHED, json.dumps({"steps": steps}) + "\n")


def is_evaluated(folder: Path, flags: Sequence[str]) -> bool:
    """Whether evaluation.json is what these flags of vidflow evaluate give."""
    try:
        return json.loads((folder / EVALUATED).read_text(encoding="utf-8")) == list(flags)
    except (OSError, ValueError):
        return False


@contextmanager
def evaluating(folder: Path, flags: Sequence[str]) -> Iterator[None]:
    """Around an evaluation: what `is_evaluated` asks for is there once all else is written, and not before.

    Raises:
      UsageError: the run was finished meanwhile, so that the scores are not of its weights; they are set aside.
    """
    hosts.on_first(lambda: (folder / EVALUATED).unlink(missing_ok=True))
    before = _finished_steps(folder)
    yield
    hosts.on_first(_mark_evaluated, folder, flags, before)


def _mark_evaluated(folder: Path, flags: Sequence[str], steps: int | None) -> None:
    if _finished_steps(folder) != steps:
        _rename_scores(folder, "unfinished" if steps is None else str(steps))
        raise UsageError(f"{folder} was trained further meanwhile: these scores are set aside; evaluate it again.")
    files.write_whole(folder / EVALUATED, json.dumps(list(flags)) + "\n")


def write_config(folder: Path, config: ConfigDict) -> None:
    """Makes the folder a run of this config; a digest inside tells whether it was altered since."""
    files.write_record(folder / "config.json", json.loads(configs.to_json(config)))


def read_config(folder: Path) -> ConfigDict:
    """The config of the run in `folder`.

    Raises:
      UsageError: the folder is no run, or its config was altered or damaged.
    """
    try:
        return configs.from_json(json.dumps(files.read_record(folder / "config.json")))
    except FileNotFoundError:
        raise UsageError(f"{folder} is no run folder (no config.json there): name one of vidflow train.") from None


def provenance() -> dict[str, object]:
    """What this process runs: commit, versions, command, machine. Recorded, never read back by a computation."""
    return {
        "vidflow": vidflow.__version__,
        "commit": _commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def _with_earlier(folder: Path, now: dict[str, object]) -> dict[str, object]:
    """The provenance of this start, and under "earlier" those of starts of the same run that differed."""
    try:
        before = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        earlier = before.pop("earlier", [])
    except (OSError, ValueError, AttributeError):
        return now
    starts = earlier if before == now else [*earlier, before]
    return {**now, "earlier": starts} if starts else now


def _is_free(key: str, leaves: Mapping[str, Any]) -> bool:
    own = key.removeprefix("autoencoder.train.")  # the config of the autoencoder that a run trains for itself
    if own == "steps" != key:
        return False  # once trained it is trained no further
    if own == "microbatches" and _rows_depend(leaves, key.removesuffix(own)):
        return False
    return any(fnmatch(own, free) or own.startswith(free + ".") for free in FREE)


def _rows_depend(leaves: Mapping[str, Any], prefix: str) -> bool:
    """Whether the loss of a row depends on the rows beside it, so that parts of a batch are another loss."""
    adversarial = leaves.get(f"{prefix}losses.adversarial") and leaves.get(f"{prefix}discriminator.adaptive")
    return bool(adversarial) or leaves.get(f"{prefix}flow.coupling", "independent") != "independent"


def _commit() -> str:
    """The commit of the checkout that this package is imported from; outside one, what the launch scripts set."""
    here = Path(__file__).parent
    elsewhere = os.environ.get("VIDFLOW_COMMIT", "unknown")
    git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        tracked = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=10
        )
        if tracked.returncode:
            return elsewhere  # installed, perhaps inside somebody else's checkout
        return subprocess.run(git, capture_output=True, text=True, timeout=10).stdout.strip() or elsewhere
    except (OSError, subprocess.TimeoutExpired):
        return elsewhere


def _check_same(old: ConfigDict, new: ConfigDict, folder: Path) -> None:
    before, after = configs.flatten(old), configs.flatten(new)
    unsaved = not any((folder / "checkpoints").glob("[0-9]*")) and _finished_steps(folder) is None
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and not _is_free(key, after) and not (key in UNTIL_SAVED and unsaved):
            raise UsageError(
                f"{folder} holds a run with {key} = {before.get(key)!r} and this config has {after.get(key)!r}: use "
                "another --workdir, or the same config to resume."
            )
