"""Training an autoencoder on videos."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vidflow.autoencoders import tiling
from vidflow.autoencoders.latents import Statistics
from vidflow.data.pipeline import Source
from vidflow.data.sources import clips_at_once, make_source, to_float
from vidflow.parallel import rules
from vidflow.parallel.hlo import matrix_flops
from vidflow.tasks import frozen_autoencoder
from vidflow.tasks.autoencoder_objective import make_objective, make_recipe
from vidflow.training import hosts
from vidflow.training.loop import Task
from vidflow.training.program import Learner

STATISTICS_CLIPS = 256


def outline(config: ConfigDict) -> Learner:
    """What the config alone says of the task.

    Raises:
      UsageError: a height or width that the strides do not divide, tiles in which the trained one could not work.
    """
    module = frozen_autoencoder.make_model(config.model)
    data, tiles = config.data, frozen_autoencoder.make_tiles(config.tiles)
    latents = module.compression.latent_shape(data.frames, data.height, data.width)  # refuses sizes that do not divide
    if tiles:
        tiling.plan(latents[:3], module.compression, tiles)
    clip = jax.ShapeDtypeStruct((data.frames, data.height, data.width, 3), jnp.uint8)
    recipe = make_recipe(module, config)
    objective, critic = make_objective(recipe, config.data.image_every), recipe.critic

    def init(key: jax.Array) -> Any:
        video = jnp.zeros((1, *clip.shape))
        params = module.init(key, video)
        return params if critic is None else params | {"discriminator": critic.init(key, video)}

    # What images and tiles cost beside is not counted: it is that of whole videos.
    counted = make_objective(recipe._replace(tile_share=0.0), image_every=0)
    return Learner(init, objective, {"video": clip}, {"autoencoder": _training_flops(init, counted, clip)})


def build(config: ConfigDict, workdir: Path) -> Task:
    """The task of `experiments/*/autoencoder.py`; `finish` leaves the artefact in `workdir/autoencoder`."""
    learner = outline(config)
    module = frozen_autoencoder.make_model(config.model)
    manifest = workdir / "data.json"
    if jax.process_count() > 1:
        hosts.on_first(partial(make_source, config.data, seed=config.seed, manifest=manifest))  # writes the manifest
    source = make_source(config.data, seed=config.seed, manifest=manifest)

    def finish(params: Any) -> None:
        params = {"params": params["params"]}  # without the discriminator
        # Bounce's clips are independent of one another; neighbours in other sources may be of one video.
        spread = config.data.source != "bounce"
        statistics = measure_statistics(module, params, source, config.batch_size, spread)
        frozen_autoencoder.save(workdir / frozen_autoencoder.NAME, config.model, params, statistics)

    return Task(learner, _Videos(source), finish)


def measure_statistics(module: Any, params: Any, source: Source, batch_size: int, spread: bool = False) -> Statistics:
    """Mean and deviation per channel of the posterior means of the first clips of the source, or of as many that are
    spread evenly over it. On one device: at most `batch_size` at a time, of large clips fewer."""
    encode = jax.jit(lambda params, video: module.apply(params, video, method="encode").mean)
    clips = min(STATISTICS_CLIPS, len(source))
    chosen = [index * len(source) // clips if spread else index for index in range(clips)]
    batch = clips_at_once(*source[0]["video"].shape[:3], most=batch_size)
    latents = [
        np.asarray(encode(params, to_float(np.stack([source[i]["video"] for i in chosen[low : low + batch]]))))
        for low in range(0, clips, batch)
    ]
    z = np.concatenate(latents).reshape(-1, module.compression.channels).astype(np.float64)
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


def _training_flops(init: Any, objective: Any, clip: jax.ShapeDtypeStruct) -> float:
    """Of one clip, forward and backward: the matrix products and convolutions of the program as it is traced.

    As for a TPU wherever this runs: convolutions count as such, not as the fewer products that a CPU makes of them.
    """
    params = rules.unbox(jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0))))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    batch = {"video": jax.ShapeDtypeStruct((1, *clip.shape), clip.dtype), "step": jax.ShapeDtypeStruct((1,), "int32")}
    traced = jax.jit(jax.grad(objective, has_aux=True)).trace(params, keys, batch)
    return matrix_flops(traced)
