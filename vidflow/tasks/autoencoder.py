"""Training an autoencoder on videos."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vidflow.autoencoders import losses
from vidflow.autoencoders.latents import Statistics
from vidflow.autoencoders.tae import TemporalAutoencoder
from vidflow.data.pipeline import Source
from vidflow.data.sources import make_source, to_float
from vidflow.tasks import frozen_autoencoder
from vidflow.training import hosts
from vidflow.training.loop import Task
from vidflow.training.program import Learner
from vidflow.typing import RowKeys

STATISTICS_CLIPS = 256


def outline(config: ConfigDict) -> Learner:
    """What the config alone says of the task.

    Raises:
      UsageError: a height or width that the strides do not divide.
    """
    module = frozen_autoencoder.make_model(config.model)
    data = config.data
    module.compression.latent_shape(data.frames, data.height, data.width)  # refuses sizes that do not divide
    clip = jax.ShapeDtypeStruct((data.frames, data.height, data.width, 3), jnp.uint8)
    objective = make_objective(module, dict(config.losses))
    return Learner(
        init=lambda key: module.init(key, jnp.zeros((1, *clip.shape))),
        objective=objective,
        row={"video": clip},
        flops_per_row=_training_flops(module, objective, clip),
    )


def build(config: ConfigDict, workdir: Path) -> Task:
    """The task of `experiments/*/autoencoder.py`; `finish` leaves the artefact in `workdir/autoencoder`."""
    learner = outline(config)
    module = frozen_autoencoder.make_model(config.model)
    manifest = workdir / "data.json"
    if jax.process_count() > 1:
        hosts.on_first(partial(make_source, config.data, seed=config.seed, manifest=manifest))  # writes the manifest
    source = make_source(config.data, seed=config.seed, manifest=manifest)

    def finish(params: Any) -> None:
        statistics = measure_statistics(module, params, source, config.batch_size)
        frozen_autoencoder.save(workdir / frozen_autoencoder.NAME, config.model, params, statistics)

    return Task(learner, _Videos(source), finish)


def make_objective(module: TemporalAutoencoder, loss_weights: dict[str, float]) -> Any:
    """Reconstruction from a posterior sample plus KL, with the given weights."""

    def objective(params: Any, keys: RowKeys, batch: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        video = batch["video"].astype(jnp.float32) / 127.5 - 1.0
        posterior = module.apply(params, video, method="encode")
        reconstruction = module.apply(params, posterior.sample(keys), video.shape[1], method="decode")
        loss, terms = losses.total(reconstruction, video, posterior, loss_weights)
        # The range of pixels is 2 wide.
        return loss, {**terms, "psnr": 10 * jnp.log10(4.0 / losses.l2(reconstruction, video)).mean()}

    return objective


def measure_statistics(module: TemporalAutoencoder, params: Any, source: Source, batch_size: int) -> Statistics:
    """Mean and deviation per channel of the posterior means of the first clips of the source."""
    encode = jax.jit(lambda params, video: module.apply(params, video, method="encode").mean)
    clips = min(STATISTICS_CLIPS, len(source))
    latents = [
        np.asarray(encode(params, to_float(np.stack([source[i]["video"] for i in range(low, high)]))))
        for low in range(0, clips, batch_size)
        for high in [min(low + batch_size, clips)]
    ]
    z = np.concatenate(latents).reshape(-1, module.channels).astype(np.float64)
    return Statistics(tuple(z.mean(axis=0).tolist()), tuple(np.maximum(z.std(axis=0), 1e-6).tolist()))


class _Videos:
    """A source without its captions, which the batcher could not stack."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        example = self._source[index]
        return {name: value for name, value in example.items() if name != "caption"}


def _training_flops(module: TemporalAutoencoder, objective: Any, clip: jax.ShapeDtypeStruct) -> float:
    """Forward and backward FLOPs of one clip, counted by XLA on the traced program (it has no loops)."""
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *clip.shape))))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    batch = {"video": jax.ShapeDtypeStruct((1, *clip.shape), clip.dtype)}
    lowered = jax.jit(jax.grad(objective, has_aux=True)).lower(params, keys, batch)
    return float(lowered.cost_analysis()["flops"])
