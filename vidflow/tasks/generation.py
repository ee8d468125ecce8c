"""Prompts to videos with a trained text-to-video run."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify
from jax.sharding import Mesh
from jaxtyping import UInt8
from ml_collections import ConfigDict

from vidflow import axes
from vidflow.attention import attend
from vidflow.autoencoders.latents import Compression
from vidflow.errors import UsageError
from vidflow.flow import targets
from vidflow.flow.guidance import classifier_free
from vidflow.models.text_to_video import TextToVideo
from vidflow.parallel import rules
from vidflow.parallel.mesh import batch_sharding, make_mesh
from vidflow.tasks import frozen_autoencoder, text_to_video
from vidflow.tasks.flow_parts import make_path, make_sampling_times, make_scale, make_solver, make_target
from vidflow.tasks.prompts import without_prompt
from vidflow.tasks.reading import Reader, make_reader
from vidflow.training import hosts, run_folder, weights
from vidflow.training.checkpoint import restore_ema

NOT_FINITE = "What the model says is not finite at step {step}, t = {t}: lower the guidance, or train it again."
NOT_SOLVED = (
    "Samples are not finite and what the model says is: end before t = 1 (config.sampling.end=0.999), take another "
    "config.sampling.solver, or lower the guidance."
)
REFERENCE = Path(__file__).parents[1] / "assets" / "bounce"  # the run that ships with the package


class Generator:
    """A text-to-video model on the devices of a mesh, with its autoencoder, ready to sample."""

    def __init__(
        self,
        config: ConfigDict,
        params: Any,
        steps: int,
        autoencoder: frozen_autoencoder.FrozenAutoencoder,
        read: Reader,
        mesh: Mesh,
    ) -> None:
        """`steps` is how many training steps `params` have seen, which lie on the mesh."""
        self.config, self.params, self.steps, self.autoencoder, self.read = config, params, steps, autoencoder, read
        self._mesh = mesh
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
        negative: str = "",
        progress: Callable[[int], None] = lambda done: None,
    ) -> UInt8[np.ndarray, "B T H W 3"]:
        """One video for each prompt.

        Sample i starts from the noise of `fold_in(key(seed), i)`, so neither the batch size nor the other prompts
        change it. Guidance leads away from `negative`, the empty prompt or one of your own. `progress` is told how many
        videos are done. Of several processes each has to call this, and gets all videos.

        Raises:
          UsageError: a prompt too long, no steps, or a size or length that the model has no positions for.
        """
        shape = self.autoencoder.compression.latent_shape(frames, height, width)
        text_to_video.check_grid(self.config, shape)
        sample = self._sampler(shape, steps, guidance)
        text = self.read([*prompts, negative])
        batch = self.whole_batch(min(self.config.sampling.batch, len(prompts)))
        videos = []
        for low in range(0, len(prompts), batch):
            rows = np.minimum(np.arange(low, low + batch), len(prompts) - 1)  # the last batch is padded, not smaller
            some = jax.tree.map(lambda x, rows=rows: x[rows], text)
            without = jax.tree.map(lambda x, rows=rows: x[np.full_like(rows, len(prompts))], text)
            with self.on_mesh():
                some, without, rows = self.place((some, without, rows))
                call = (self.params, some, without, np.int64(seed).astype(np.int32), rows)
                latents = hosts.everywhere(sample(*call))
                if not np.isfinite(latents).all():
                    raise UsageError(_first_failure(sample, call))
            videos.append(self.autoencoder.decode(latents, frames)[: len(prompts) - low])
            progress(min(low + batch, len(prompts)))
        return np.concatenate(videos)

    @contextmanager
    def on_mesh(self) -> Iterator[None]:
        """While entered, functions of `params` are traced for the mesh that these lie on."""
        with rules.in_force(self.config.get("rules", rules.DEFAULT)), jax.set_mesh(self._mesh):
            yield

    def place(self, batch: Any) -> Any:
        """The rows of a batch where the mesh has them."""
        return jax.tree.map(partial(hosts.spread, place=batch_sharding(self._mesh)), batch)

    def whole_batch(self, rows: int) -> int:
        """The smallest batch of so many rows or more that the mesh divides."""
        ways = math.prod(self._mesh.shape[axis] for axis in axes.BATCH)
        return -(-rows // ways) * ways

    def _sampler(self, shape: tuple[int, ...], steps: int, guidance: float) -> Callable[..., Any]:
        key = (shape, steps, guidance)
        if key not in self._compiled:
            sample = make_sampler(self._model, self.config, shape, steps, guidance)
            self._compiled[key] = jax.jit(lambda *call: sample(*call[:3], jax.random.key(call[3]), call[4]))
        return self._compiled[key]


def _first_failure(sample: Callable[..., jax.Array], call: tuple[Any, ...]) -> str:
    """At which step and time a model first said what is not finite: the same call once more, looking at each step."""
    found = jax.jit(checkify.checkify(sample))(*call)[0].get()
    return found.removesuffix(" (`check` failed)") if found else NOT_SOLVED


def make_sampler(
    model: TextToVideo, config: ConfigDict, shape: tuple[int, ...], steps: int, guidance: float
) -> Callable[..., jax.Array]:
    """The function (params, text of B rows, text to lead away from, key, rows [B]) -> latents [B, *shape].

    Path and target are those that the model was trained for; solver, schedule and guidance those of `config.sampling`.

    Passed through `checkify`, it tells the first step at which what the model says is not finite.

    Raises:
      UsageError: no steps, fewer than the solver needs, or times at which the target does not determine the velocity.
    """
    sampling, path, target = config.sampling, make_path(config.flow), make_target(config.flow)
    times = make_sampling_times(config, steps)
    scale = make_scale(sampling, guidance, times)

    def sample(params: Any, text: Any, without: Any, key: jax.Array, rows: jax.Array) -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
        noise, solver = jax.vmap(lambda key: jax.random.normal(key, shape))(keys), make_solver(sampling, path, keys)
        condition, null = (model.apply(params, some, method="encode_text") for some in (text, without))

        def network(x: jax.Array, t: jax.Array, conditioning: Any) -> jax.Array:
            t = jnp.broadcast_to(t, x.shape[:1])
            prediction = model.apply(params, x, t, conditioning, method="predict").prediction.astype(jnp.float32)
            step = jnp.searchsorted(jnp.asarray(times), t[0], side="right")
            checkify.debug_check(jnp.isfinite(prediction).all(), NOT_FINITE, step=step, t=t[0])
            return prediction

        velocity = targets.as_velocity(network, target, path)
        return solver(classifier_free(velocity, condition, null, scale, sampling.guidance_rescale), noise, times)

    return sample


def load(run: Path, mesh: Mesh | None = None) -> Generator:
    """The model of a run folder: its final averaged weights, or before its end those of its newest checkpoint.

    They are spread over the mesh by the rules of the run's config; over one device if None.

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
    mesh = mesh or make_mesh()
    if not attend.runs_on(config.model.kernel, mesh.devices.flat[0].platform):
        config.model.kernel = "xla"  # the same function by what every device has
    boxed = abstract_params(config, autoencoder.compression)
    weights.check_shapes(params, rules.unbox(boxed), run)
    with rules.in_force(config.get("rules", rules.DEFAULT)):
        params = jax.tree.map(hosts.spread, params, rules.shardings(boxed, mesh))
    return Generator(config, params, steps, autoencoder, make_reader(config, run), mesh)


def abstract_params(config: ConfigDict, compression: Compression) -> Any:
    """Shapes of the parameters of that config with the names of their axes, without making any."""
    data = config.data
    latents = jnp.zeros(compression.latent_shape(data.frames, data.height, data.width))[None]
    text = without_prompt(text_to_video.prompts_of(config), 1)
    model = text_to_video.make_model(config)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), latents, jnp.zeros(1), text))
