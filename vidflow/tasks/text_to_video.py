"""Training a text-to-video model on the latents of a frozen autoencoder."""

import logging
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vidflow import files
from vidflow.attention import attend
from vidflow.choices import imported
from vidflow.data.latents_cache import LatentsSource
from vidflow.errors import UsageError
from vidflow.flow import objectives
from vidflow.models import design, rematerialisation
from vidflow.models.dit import VideoTransformer
from vidflow.models.sizes import size
from vidflow.models.text_to_video import TextToVideo
from vidflow.models.tokens import Grid, grid_of
from vidflow.scaling import flops
from vidflow.tasks import frozen_autoencoder
from vidflow.tasks.encoding import encode_clips
from vidflow.tasks.flow_parts import check_sampling, make_recipe
from vidflow.tasks.prompts import Prompts, make_prompts, without_prompt, without_some
from vidflow.tasks.reading import Reader, make_reader
from vidflow.training import hosts, loop, program, run_folder, warm_start, weights
from vidflow.training.program import Learner
from vidflow.typing import RowKeys

LEARNT_FROM = "latents_cache.json"  # of a run on a cache of latents that others share: which one


def outline(config: ConfigDict) -> Learner:
    """What the config alone says of the task: latents have the compression of `config.autoencoder.train`.

    Raises:
      UsageError: sizes beyond the position tables or not divisible.
    """
    return _learner(config, latent_shape(config))


def latent_shape(config: ConfigDict) -> tuple[int, int, int, int]:
    """(t, h, w, c) of the latents of a clip, by the compression of `config.autoencoder.train`."""
    data = config.data
    compression = frozen_autoencoder.make_model(config.autoencoder.train.model).compression
    return compression.latent_shape(data.frames, data.height, data.width)


def build(config: ConfigDict, workdir: Path) -> loop.Task:
    """The task of `experiments/*/text_to_video.py`.

    Before training it puts a frozen autoencoder (copied from `config.autoencoder.run`, or trained here if that is
    empty) into `workdir/autoencoder`, latents into `workdir/latents` unless `config.data.source` is "cache", and
    embeddings of the captions by text encoders, if there are any, into `workdir/text` unless `config.text.cache` has
    them.

    Raises:
      UsageError: an autoencoder of another compression than the config's or to be trained on other clips, latents of
        another one or of other clips, sizes beyond the position tables or not divisible, weights to begin with of
        another model, captions too long, or embeddings that a shared cache lacks.
    """
    # Refuses what cannot be before an autoencoder is trained for it.
    attend.check(config.model.kernel, config.model.get("strategy"), jax.default_backend())
    make_objective(make_model(config), config)
    check_sampling(config)
    reader = make_reader(config, workdir)
    reader.check()
    data = config.data
    if not config.autoencoder.run:
        program.check(config.autoencoder.train)
    cached = _open_cache(data.path) if data.source == "cache" else None
    _check_autoencoder(config, workdir)
    learner = outline(config)
    program.check_step(config, learner)
    if config.init_from and not (workdir / frozen_autoencoder.NAME).exists():
        warm_start.check(Path(config.init_from), learner.init, learner.patch_volume)
    autoencoder = obtain_autoencoder(config, workdir)
    if cached is None:
        hosts.on_first(encode_clips, data, config.seed, autoencoder, workdir / "latents")
    else:
        _check_cache(cached, config, autoencoder)
    latents = LatentsSource(workdir / "latents") if cached is None else cached
    hosts.on_first(reader.prepare, latents.captions)
    if cached is not None:
        hosts.on_first(_same_cache, cached, workdir)

    def finish(params: Any) -> None:
        weights.save(workdir / "weights.safetensors", params, {"steps": str(config.steps)})

    return loop.Task(learner, _Captioned(latents, reader), finish)


def _open_cache(path: str) -> LatentsSource:
    if not path:
        raise UsageError("config.data.source is 'cache' and config.data.path is empty: name a folder that encode made.")
    return LatentsSource(Path(path))


def _check_cache(cached: LatentsSource, config: ConfigDict, autoencoder: frozen_autoencoder.FrozenAutoencoder) -> None:
    data, made_of = config.data, cached.recipe["data"]
    if cached.recipe["autoencoder"] != autoencoder.digest:
        raise UsageError(f"The latents in {data.path} are of another autoencoder: encode the clips with this run's.")
    told = ("captions", "level", "signs") if made_of["source"] == "bounce" else ()
    for name in ("frames", "height", "width", "fps", *told):
        if made_of.get(name) != data.get(name):
            raise UsageError(
                f"The latents in {data.path} are of clips with {name} = {made_of.get(name)}, and config.data.{name} is "
                f"{data.get(name)}: give --config.data.{name}={made_of.get(name)}, or encode such clips."
            )


def _same_cache(cached: LatentsSource, workdir: Path) -> None:
    """Notes which cache the run learns from. Raises UsageError: it began with one of other clips."""
    record, now = workdir / LEARNT_FROM, {"cache": files.digest(cached.recipe), "clips": len(cached)}
    if not record.exists():
        files.write_record(record, now)
    if files.read_record(record) != now:
        raise UsageError(
            f"The cache of latents is not the one that {workdir} began with: give that one in config.data.path, or use "
            "another --workdir."
        )


def _check_autoencoder(config: ConfigDict, workdir: Path) -> None:
    """That one to be trained will learn from what the run learns from. Of one that is trained already: plans and counts
    of FLOPs, which know the config alone, are of its latents."""
    own, run = workdir / frozen_autoencoder.NAME, config.autoencoder.run
    folder = own if (own / frozen_autoencoder.CARD).exists() or not run else Path(run) / frozen_autoencoder.NAME
    if not (folder / frozen_autoencoder.CARD).exists():
        if not run:
            _check_pixels(config.data, config.autoencoder.train.data)
        return  # to be trained, or refused where it is copied
    planned = frozen_autoencoder.make_model(config.autoencoder.train.model).compression
    if (found := frozen_autoencoder.compression(folder)) != planned:
        raise UsageError(
            f"The autoencoder in {folder} has {found}, and that of config.autoencoder.train {planned}: give "
            "config.autoencoder.train.model the values that it was trained with."
        )


def _check_pixels(data: ConfigDict, own: ConfigDict) -> None:
    """Of an autoencoder that the run trains for itself on `own` data."""
    if data.source == "cache":
        raise UsageError(
            f"The latents in config.data.path={data.path} are of an autoencoder that is trained already: name its run "
            "in config.autoencoder.run."
        )
    if (own.source, own.path) != (data.source, data.path):
        raise UsageError(
            f"config.data.source is '{data.source}', path '{data.path}', and the autoencoder would learn from "
            f"config.autoencoder.train.data.source='{own.source}', path '{own.path}': train one on the same clips and "
            "name its run in config.autoencoder.run, or set source and path there too."
        )


def _learner(config: ConfigDict, latent_shape: tuple[int, int, int, int]) -> Learner:
    grid, prompts = check_grid(config, latent_shape), prompts_of(config)
    model = make_model(config)
    row = {
        "latents": jax.ShapeDtypeStruct(latent_shape, jnp.float32),
        "text": jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), prompts.empty),
    }
    # The smallest video that the patch divides: parameters depend on no size but that of the channels.
    smallest = (*config.model.patch, latent_shape[-1])

    def init(key: jax.Array) -> Any:
        return model.init(key, jnp.zeros((1, *smallest)), jnp.zeros((1,)), without_prompt(prompts, 1))

    forward = _forward_flops(config, prompts, grid, latent_shape[-1])
    training = {part: float((1 + flops.BACKWARD) * value) for part, value in forward.items()}
    return Learner(init, make_objective(model, config), row, training, math.prod(config.model.patch))


def prompts_of(config: ConfigDict) -> Prompts:
    """The text side of the model."""
    return make_prompts(config.text, size(config.model.size).width, jnp.dtype(config.model.dtype))


def make_model(config: ConfigDict) -> TextToVideo:
    """The module that `config.model` and `config.text` describe."""
    model = config.model
    saved = tuple(model.get("saved", ()))  # absent, like the next two, from the configs of older runs
    rematerialisation.policy(model.remat, saved)  # refuses an unknown word before anything is traced
    return TextToVideo(
        text=prompts_of(config).module,
        backbone=VideoTransformer(
            size=size(model.size),
            patch=tuple(model.patch),
            positions=tuple(model.positions),
            design=design.of(model.design),
            remat=model.remat,
            saved=saved,
            unrolled=model.get("unrolled", False),
            strategy=model.get("strategy"),
            kernel=model.kernel,
            dtype=jnp.dtype(model.dtype),
        ),
    )


def make_objective(model: TextToVideo, config: ConfigDict) -> Any:
    """The regression of `config.flow` on latents given text, or, with probability `text.dropout`, the empty prompt.

    Raises:
      UsageError: times of frames for a model that cannot tell whose each is.
    """
    recipe, patch_time = make_recipe(config.flow), config.model.patch[0]
    if recipe.per_frame and not design.of(config.model.design).vectors:
        raise UsageError(
            f"config.flow.per_frame gives every frame its own time, and config.model.design.time = "
            f"'{config.model.design.time}' makes them tokens of which none says whose time it is: use 'adaln_zero' or "
            "'adaln'."
        )
    prompts = prompts_of(config)

    def objective(params: Any, keys: RowKeys, batch: dict[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
        drop_key, flow_key = jax.vmap(jax.random.split, out_axes=1)(keys)
        text = without_some(batch["text"], prompts.empty, prompts.drops(drop_key))
        conditioning = model.apply(params, text, method="encode_text")

        def network(x: jax.Array, t: jax.Array) -> jax.Array:
            return model.apply(params, x, t, conditioning, method="predict").prediction

        latents, strata = batch["latents"], (batch["row"], config.batch_size)
        frames = latents.shape[1] // patch_time
        loss, t = objectives.regression(network, flow_key, latents, recipe, strata=strata, frames=frames)
        return loss.mean(), {"loss_by_time": objectives.loss_by_time(loss, t)}

    return objective


def check_grid(config: ConfigDict, latent_shape: tuple[int, ...]) -> Grid:
    """The grid of patches of such latents.

    Raises:
      UsageError: a side that the patch does not divide, or that is longer than its position table, if the design has
        any.
    """
    patch, tables = tuple(config.model.patch), tuple(config.model.positions)
    learns = design.of(config.model.design).learns_positions
    for name, side, step, table in zip(("time", "height", "width"), latent_shape[:3], patch, tables, strict=True):
        if side % step:
            raise UsageError(
                f"Latents of {side} along {name} do not divide into patches of {step} (config.model.patch): choose "
                f"frames, height and width so that they do."
            )
        if learns and side // step > table:
            raise UsageError(
                f"This video has {side // step} patches along {name} and the model's position table holds {table} "
                "(config.model.positions): ask for a smaller or shorter video, or train with longer tables."
            )
    return grid_of(tuple(latent_shape), patch)


def obtain_autoencoder(config: ConfigDict, workdir: Path) -> frozen_autoencoder.FrozenAutoencoder:
    """The run's own copy of its autoencoder, made on the first call, so that a moved run still samples."""
    own = workdir / frozen_autoencoder.NAME
    if config.autoencoder.run:
        trained = Path(config.autoencoder.run) / frozen_autoencoder.NAME
    else:
        trained = workdir / "autoencoder_run" / frozen_autoencoder.NAME
        if not (own / frozen_autoencoder.CARD).exists():  # the same on every process: it comes after all have trained
            train = config.autoencoder.train.copy_and_resolve_references()
            train.preemption_code = config.preemption_code
            _train_autoencoder(train, trained.parent)
    hosts.on_first(frozen_autoencoder.copy, trained, own)
    return frozen_autoencoder.load(own, frozen_autoencoder.make_tiles(config.autoencoder.train.tiles))


def _train_autoencoder(config: ConfigDict, workdir: Path) -> None:
    logging.info("config.autoencoder.run is empty: training an autoencoder in %s", workdir)
    run_folder.prepare(workdir, config)
    loop.train(config, workdir, imported(f"{config.task}.build", "config.task")(config, workdir))


class _Captioned:
    """Latents with the text of their captions."""

    def __init__(self, latents: LatentsSource, reader: Reader) -> None:
        self._latents, self._reader = latents, reader

    def __len__(self) -> int:
        return len(self._latents)

    def __getitem__(self, index: int) -> dict[str, Any]:
        text = jax.tree.map(lambda x: x[0], self._reader([self._latents.captions[index]]))
        return {"latents": self._latents[index]["latents"], "text": text}


def _forward_flops(config: ConfigDict, prompts: Prompts, grid: Grid, channels: int) -> dict[str, int]:
    parts = flops.transformer(
        size(config.model.size),
        tokens=grid.tokens,
        text_tokens=prompts.tokens,
        text_width=prompts.width,
        features=channels * int(np.prod(config.model.patch)),
        design=design.of(config.model.design),
    )
    return parts._asdict() | {"text_encoder": prompts.forward_flops}
