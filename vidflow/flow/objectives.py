"""Training objectives: what is regressed, and with which weight."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.flow import paths
from vidflow.flow.times import TimeDensity
from vidflow.typing import RowKeys

TIME_BUCKETS = 10


def flow_matching(
    velocity: Callable[[Float[Array, "B ..."], Float[Array, "B"]], Float[Array, "B ..."]],
    keys: RowKeys,
    x1: Float[Array, "B ..."],
    *,
    path: paths.Path,
    times: TimeDensity,
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Conditional flow matching: the squared error of the predicted velocity (Lipman et al., eq. 9).

    Noise and time of a row depend on that row's key alone, so the batch can be split or reordered freely.

    Args:
      velocity: the model, (x_t, t) -> prediction of the shape of x_t.
      keys: one key for each row.
      x1: data, normalised latents.
      path, times: the probability path and the density of t.

    Returns:
      The loss of each row, averaged over its elements, in float32, and the time drawn for it.
    """
    noise_key, time_key = jax.vmap(jax.random.split, out_axes=1)(keys)
    x1 = x1.astype(jnp.float32)
    x0 = jax.vmap(lambda key, x: jax.random.normal(key, x.shape))(noise_key, x1)
    t = jax.vmap(times)(time_key)
    prediction = velocity(paths.interpolate(path, x1, x0, t), t).astype(jnp.float32)
    error = jnp.square(prediction - paths.velocity(path, x1, x0, t))
    return error.mean(axis=tuple(range(1, error.ndim))), t


def loss_by_time(loss: Float[Array, "B"], t: Float[Array, "B"]) -> Float[Array, "buckets"]:
    """Mean loss in ten equal buckets of t; NaN where no row fell, infinity where the loss of a row is not finite.

    A flow loss looks flat because t explains most of it: progress shows within a bucket.
    """
    bucket = jnp.clip((t * TIME_BUCKETS).astype(jnp.int32), 0, TIME_BUCKETS - 1)
    member = jax.nn.one_hot(bucket, TIME_BUCKETS, dtype=loss.dtype)
    of_rows = jnp.where(member > 0, jnp.where(jnp.isfinite(loss), loss, jnp.inf)[:, None], 0.0)
    return of_rows.sum(axis=0) / member.sum(axis=0)
