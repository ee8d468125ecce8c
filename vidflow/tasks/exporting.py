"""Weights out of runs: one checkpoint, or the mean of several, as a file or as a folder that samples."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from vidflow import files
from vidflow.errors import UsageError
from vidflow.tasks import frozen_autoencoder, reading
from vidflow.training import run_folder, warm_start, weights


def export(runs: Sequence[Path], steps: Sequence[int], best: str, out: Path) -> int:
    """Writes the mean of the averaged weights of all `runs` at all `steps` (none: the newest), or where the metric
    `best` is lowest, and returns how many it is the mean of.

    A name that ends in .safetensors becomes that file; another one a folder with config, weights and autoencoder of
    the first run, for `vidflow sample --run` and for `config.init_from`.

    Raises:
      UsageError: a run without such a checkpoint, runs of different models or, for a folder, on latents of different
        autoencoders or embeddings of different text encoders, or a folder that holds anything.
    """
    found: list[tuple[str, int]] = []

    def trees() -> Iterator[Any]:
        like = None
        for run in runs:
            for step in steps or (None,):
                params, at = warm_start.averaged_weights(run, step, best)
                like = like or jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
                weights.check_shapes(params, like, run)
                found.append((run.name, at))
                yield params

    params = warm_start.mean(trees())
    sources = [f"{name} at step {step}" for name, step in found]
    metadata = {"steps": str(max(step for _, step in found)), "mean_of": json.dumps(sources)}
    if out.suffix == ".safetensors":
        files.make_folder(out.parent)
        weights.save(out, params, metadata)
    else:
        _write_folder(runs, out, params, metadata)
    return len(found)


def _write_folder(runs: Sequence[Path], out: Path, params: Any, metadata: dict[str, str]) -> None:
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is there and not empty: choose another --out.")
    config = run_folder.read_config(runs[0])
    if "sampling" not in config:
        raise UsageError(f"{runs[0]} is a run of {config.get('task', 'another kind')}: export to a .safetensors file.")
    autoencoders = [run / frozen_autoencoder.NAME for run in runs]
    for folder in autoencoders:
        if frozen_autoencoder.load(folder).digest != frozen_autoencoder.load(autoencoders[0]).digest:
            raise UsageError(f"{folder} and {autoencoders[0]} differ: runs on other latents have no common mean.")
    for run in runs:
        if reading.learnt_from(run) != reading.learnt_from(runs[0]):
            raise UsageError(
                f"{run} and {runs[0]} learnt from embeddings of different text encoders: they have no common mean."
            )
    files.make_folder(out)
    shutil.copytree(autoencoders[0], out / frozen_autoencoder.NAME, dirs_exist_ok=True)
    if (record := runs[0] / reading.RECORD).exists():
        shutil.copyfile(record, out / reading.RECORD)
    weights.save(out / "weights.safetensors", params, metadata)
    files.write_whole(out / "provenance.json", json.dumps({**run_folder.provenance(), **metadata}, indent=2) + "\n")
    run_folder.write_config(out, config)  # last: it makes the folder a run
