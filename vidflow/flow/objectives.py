"""The training objective: the squared error of what the network is asked for, along a path, at drawn times."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vidflow.flow import couplings, paths, targets
from vidflow.flow import times as densities
from vidflow.typing import RowKeys

TIME_BUCKETS = 10

Network = Callable[[Float[Array, "B ..."], Float[Array, "B ..."]], Float[Array, "B ..."]]


class Recipe(NamedTuple):
    """What makes one objective of this family another.

    Attributes:
      path, target: of what the network sees and says.
      times: the density of t.
      coupling: which noise goes with which datum.
      per_frame: whether every frame has a time of its own.
      stratified: whether the times of a batch are spread evenly over their density.
    """

    path: paths.Path
    target: targets.Target
    times: densities.TimeDensity
    coupling: couplings.Coupling
    per_frame: bool = False
    stratified: bool = False


def regression(
    network: Network,
    keys: RowKeys,
    x1: Float[Array, "B ..."],
    recipe: Recipe,
    *,
    strata: tuple[Int[Array, "B"], int] | None = None,
    frames: int | None = None,
) -> tuple[Float[Array, "B ..."], Float[Array, "B ..."]]:
    """Conditional flow matching and its relatives: the error of a prediction of a x1 + b x0 at x_t (Lipman et al.,
    eq. 9, for the velocity).

    Noise and time of a row depend on that row's key alone, so the batch can be split or reordered freely; only
    a coupling looks at the whole batch.

    Args:
      network: (input, t) -> prediction of the shape of x1.
      keys: one key for each row.
      x1: data, normalised latents.
      strata: the row of each in its batch, and the size of that batch; needed where the recipe stratifies.
      frames: how many times a row needs where the recipe gives every frame its own.

    Returns:
      The loss at each time, averaged over the elements it is of, in float32, and the times: [B], or [B, frames].
    """
    noise_key, time_key = jax.vmap(jax.random.split, out_axes=1)(keys)
    x1 = x1.astype(jnp.float32)
    x0 = recipe.coupling(x1, jax.vmap(lambda key, x: jax.random.normal(key, x.shape))(noise_key, x1))
    t = densities.draw(
        recipe.times,
        time_key,
        frames=frames if recipe.per_frame else None,
        strata=strata if recipe.stratified else None,
    )
    spread = t
    if recipe.per_frame:  # a frame of patches is one or more frames of latents
        spread = jnp.repeat(t, x1.shape[1] // t.shape[1], axis=1)
    x = paths.interpolate(recipe.path, x1, x0, spread)
    scale = recipe.target.input_scale(recipe.path, paths.align(spread, x))
    prediction = network(scale * x, t).astype(jnp.float32)
    error = jnp.square(prediction - targets.value(recipe.target, recipe.path, x1, x0, spread))
    return error.reshape(*t.shape, -1).mean(axis=-1), t


def loss_by_time(loss: Float[Array, "B ..."], t: Float[Array, "B ..."]) -> Float[Array, "buckets"]:
    """Mean loss in ten equal buckets of t; NaN where no row fell, infinity where the loss of a row is not finite.

    A flow loss looks flat because t explains most of it: progress shows within a bucket.
    """
    loss, t = loss.ravel(), t.ravel()
    bucket = jnp.clip((t * TIME_BUCKETS).astype(jnp.int32), 0, TIME_BUCKETS - 1)
    member = jax.nn.one_hot(bucket, TIME_BUCKETS, dtype=loss.dtype)
    of_rows = jnp.where(member > 0, jnp.where(jnp.isfinite(loss), loss, jnp.inf)[:, None], 0.0)
    return of_rows.sum(axis=0) / member.sum(axis=0)
