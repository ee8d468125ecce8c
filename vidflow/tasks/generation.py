"""Prompts to videos with a trained text-to-video run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from vidflow.autoencoders.latents import Compression
from vidflow.errors import UsageError
from vidflow.flow import schedules, solvers
from vidflow.flow.guidance import classifier_free
from vidflow.models.text_to_video import TextToVideo
from vidflow.parallel import rules
from vidflow.tasks import frozen_autoencoder, text_to_video
from vidflow.tasks.prompts import without_prompt
from vidflow.text import byte_tokens
from vidflow.training import run_folder, weights
from vidflow.training.checkpoint import restore_ema

REFERENCE = Path(__file__).parents[1] / "assets" / "bounce"  # the run that ships with the package


class Generator:
    """A text-to-video model with its autoencoder, ready to sample."""

    def __init__(
        self, config: ConfigDict, params: Any, steps: int, autoencoder: frozen_autoencoder.FrozenAutoencoder
    ) -> None:
        """`steps` is how many training steps `params` have seen."""
        self.config, self.params, self.steps, self.autoencoder = config, params, steps, autoencoder
        self._model = text_to_video.make_model(config)
        self._compiled: dict[tuple, Callable[..., jax.Array]] = {}

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        seed: int,
        steps: int,
        guidance: float,
        frames: int,
        height: int,
        width: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> UInt8[np.ndarray, "B T H W 3"]:
        """One video for each prompt.

        Sample i starts from the noise of `fold_in(key(seed), i)`, so neither the batch size nor the other prompts
        change it. `progress` is told how many videos are done.

        Raises:
          UsageError: a prompt too long, no steps, or a size or length that the model has no positions for.
        """
        ids = byte_tokens.tokenize(prompts, self.config.text.length)
        shape = self.autoencoder.compression.latent_shape(frames, height, width)
        text_to_video.check_grid(self.config, shape)
        sample = self._sampler(shape, steps, guidance)
        batch = min(self.config.sampling.batch, len(prompts))
        videos = []
        for low in range(0, len(prompts), batch):
            rows = np.minimum(np.arange(low, low + batch), len(prompts) - 1)  # the last batch is padded, not smaller
            latents = sample(self.params, ids[rows], jax.random.key(seed), rows)
            videos.append(self.autoencoder.decode(latents, frames)[: len(prompts) - low])
            progress(min(low + batch, len(prompts)))
        return np.concatenate(videos)

    def _sampler(self, shape: tuple[int, ...], steps: int, guidance: float) -> Callable[..., jax.Array]:
        key = (shape, steps, guidance)
        if key not in self._compiled:
            times = make_schedule(self.config.sampling, steps)
            empty = text_to_video.prompts_of(self.config).empty
            self._compiled[key] = jax.jit(make_sampler(self._model, empty, shape, times, guidance))
        return self._compiled[key]


def make_sampler(
    model: TextToVideo, empty: Any, shape: tuple[int, ...], times: np.ndarray, guidance: float
) -> Callable[..., jax.Array]:
    """The pure function (params, text of B rows, key, rows [B]) -> latents [B, *shape]; `empty` is one row's text."""

    def sample(params: Any, text: Any, key: jax.Array, rows: jax.Array) -> jax.Array:
        noise = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), shape))(rows)
        null = jax.tree.map(lambda x, nothing: jnp.broadcast_to(nothing, x.shape), text, empty)
        condition, nothing = (model.apply(params, some, method="encode_text") for some in (text, null))

        def velocity(x: jax.Array, t: jax.Array, conditioning: Any) -> jax.Array:
            t = jnp.broadcast_to(t, x.shape[:1])
            return model.apply(params, x, t, conditioning, method="velocity").prediction.astype(jnp.float32)

        return solvers.euler(classifier_free(velocity, condition, nothing, guidance), noise, times)

    return sample


def make_schedule(sampling: ConfigDict, steps: int) -> np.ndarray:
    """The times of `config.sampling` for that many steps."""
    if sampling.schedule == "uniform":
        return schedules.uniform(steps)
    if sampling.schedule == "linear_quadratic":
        return schedules.linear_quadratic(steps, sampling.reference)
    raise UsageError(
        f"Unknown config.sampling.schedule '{sampling.schedule}': use 'uniform' or 'linear_quadratic'."
    )


def load(run: Path) -> Generator:
    """The model of a run folder: its final averaged weights, or before its end those of its newest checkpoint.

    Raises:
      UsageError: no run there, not a text-to-video run, nothing trained yet, or weights that are not of its config.
    """
    config = run_folder.read_config(run)
    if "sampling" not in config:
        raise UsageError(f"{run} is a run of {config.get('task', 'another kind')}: name a text-to-video run.")
    final, checkpoints = run / "weights.safetensors", run / "checkpoints"
    # A finished run that is trained further has weights older than its checkpoints until its new end.
    goes_on = checkpoints.is_dir() and not run_folder.is_finished(run, config.steps)
    if final.exists() and not goes_on:
        params, metadata = weights.load(final)
        steps = int(metadata.get("steps", config.steps))
    elif checkpoints.is_dir():
        params, steps = restore_ema(checkpoints)
    else:
        raise UsageError(f"{run} holds neither weights nor checkpoints yet: train it first.")
    tiles = frozen_autoencoder.make_tiles(config.autoencoder.train.tiles)
    autoencoder = frozen_autoencoder.load(run / frozen_autoencoder.NAME, tiles)
    weights.check_shapes(params, abstract_params(config, autoencoder.compression), run)
    return Generator(config, params, steps, autoencoder)


def abstract_params(config: ConfigDict, compression: Compression) -> Any:
    """Shapes of the parameters of that config, without making any."""
    data = config.data
    latents = jnp.zeros(compression.latent_shape(data.frames, data.height, data.width))[None]
    text = without_prompt(text_to_video.prompts_of(config), 1)
    model = text_to_video.make_model(config)
    return rules.unbox(jax.eval_shape(lambda: model.init(jax.random.key(0), latents, jnp.zeros(1), text)))
