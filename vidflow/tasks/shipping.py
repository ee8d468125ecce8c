"""A finished run as a small folder that can travel: half-precision weights, config, provenance, scores, samples."""

import json
import shutil
from pathlib import Path

import numpy as np

from vidflow import files
from vidflow.errors import UsageError
from vidflow.tasks import evaluation, frozen_autoencoder, reading
from vidflow.training import run_folder, weights


def ship(run: Path, folder: Path, recipe: str) -> None:
    """Writes into `folder` what `vidflow sample --run=folder` and a report need of the run, and nothing else.

    Both sets of weights are rounded to float16. `recipe` names the script that makes it again, and stands in the
    provenance in place of commands and paths of the machine it was trained on.

    Raises:
      UsageError: the run is not finished.
    """
    config = run_folder.read_config(run).unlock()
    if not run_folder.is_finished(run, config.steps):
        raise UsageError(f"{run} is not finished: train it for its {config.steps} steps, then ship it.")
    params, metadata = weights.load(run / "weights.safetensors")
    autoencoder = frozen_autoencoder.load(run / frozen_autoencoder.NAME)
    config.autoencoder.run = config.init_from = ""
    config.data = evaluation.data_of(config)
    config.data.unlock().path = config.data.test_path = ""
    files.make_folder(folder)
    weights.save(folder / "weights.safetensors", weights.rounded(params, np.float16), metadata)
    frozen_autoencoder.save(
        folder / frozen_autoencoder.NAME,
        autoencoder.model,
        weights.rounded(autoencoder.params, np.float16),
        autoencoder.statistics,
    )
    run_folder.write_config(folder, config)
    provenance = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    for local in ("command", "earlier"):  # they name folders of one machine; the recipe does not
        provenance.pop(local, None)
    files.write_whole(folder / "provenance.json", json.dumps({**provenance, "recipe": recipe}, indent=2) + "\n")
    for name in (*run_folder.SCORES, reading.RECORD):
        source, target = run / name, folder / name
        if target.is_dir():  # of what was shipped there before
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.exists():
            shutil.copyfile(source, target)
