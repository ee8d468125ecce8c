"""One validation loss for models of all paths and targets.

Losses of training are of different quantities and weights. But whatever is predicted, on whatever path, tells the datum
and the noise in its input (`flow/targets.py`), and so the velocity x1 - x0 of the straight path between them. So every
model of one seed is shown the same clips with the same noises at the same ten signal-to-noise ratios, those of t = 0.05
... 0.95 on the straight path, and asked for that; of another seed, other noises and, of bounce, other clips.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vidflow.data.pipeline import Source
from vidflow.flow import paths, targets
from vidflow.flow.paths import Path, align
from vidflow.metrics import intervals
from vidflow.metrics.intervals import Interval
from vidflow.tasks import flow_parts, text_to_video
from vidflow.tasks.generation import Generator
from vidflow.training import hosts

LEVELS = (np.arange(10) + 0.5) / 10
HALVINGS = 60


def flow_loss(generator: Generator, source: Source, clips: int) -> dict[str, Interval]:
    """`validation/flow_loss`: the squared error of x1 - x0 of the first clips, the mean over ten noise levels; as many
    clips at a time as are sampled at a time."""
    loss = jax.jit(_make_loss(generator))
    rows: list[float] = []
    clips, batch = min(clips, len(source)), generator.whole_batch(generator.config.sampling.batch)
    for low in range(0, clips, batch):
        numbers = np.minimum(np.arange(low, low + batch), clips - 1)  # the last batch is padded, not smaller
        some = [source[int(number)] for number in numbers]
        latents = generator.autoencoder.encode(np.stack([clip["video"] for clip in some]))
        text = generator.read([clip["caption"] for clip in some])
        with generator.on_mesh():
            errors = hosts.everywhere(loss(generator.params, *generator.place((latents, text, numbers))))
        rows += errors[: clips - low].tolist()
    return {"validation/flow_loss": intervals.mean(rows)}


def _make_loss(generator: Generator) -> Callable[..., jax.Array]:
    config = generator.config
    model, path, target = (
        text_to_video.make_model(config),
        flow_parts.make_path(config.flow),
        flow_parts.make_target(config.flow),
    )
    times = jnp.asarray([time_of(path, np.log(t) - np.log1p(-t)) for t in LEVELS], jnp.float32)

    def loss(params: Any, x1: jax.Array, text: Any, rows: jax.Array) -> jax.Array:
        conditioning = model.apply(params, text, method="encode_text")
        keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(config.seed), row))(rows)
        x0 = jax.vmap(lambda key: jax.random.normal(key, x1.shape[1:]))(keys)

        def at(t: jax.Array) -> jax.Array:
            t = jnp.broadcast_to(t, x1.shape[:1])
            x, spread = paths.interpolate(path, x1, x0, t), align(t, x1)
            scale = target.input_scale(path, spread)
            said = model.apply(params, scale * x, t, conditioning, method="predict").prediction.astype(jnp.float32)
            data, noise = (
                targets.convert(target, wanted, path, said, x, spread) for wanted in (targets.data(), targets.noise())
            )
            error = jnp.square(data - noise - (x1 - x0))
            return error.mean(axis=tuple(range(1, error.ndim)))

        return jax.lax.map(at, times).mean(axis=0)

    return loss


def time_of(path: Path, log_snr: float) -> float:
    """The time at which alpha / sigma has this logarithm, by halving, for it grows along every path."""
    low, high = 0.0, 1.0
    with jax.enable_x64(True):
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            below = float(paths.log_snr(path, jnp.asarray(middle))) < log_snr
            low, high = (middle, high) if below else (low, middle)
    return 0.5 * (low + high)
