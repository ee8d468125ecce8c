"""Which steps are taken: those whose loss and gradient are numbers and, if asked for, not far outside the usual."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp


class Limits(NamedTuple):
    """What counts as unusual, against running statistics over about `window` steps.

    Attributes:
      loss_spike: a step is skipped when its loss lies this many standard deviations above the mean; 0: never.
      norm_spike: a gradient is scaled down to this many times the mean of the gradients' norms; 0: never.
      window: steps. Before so many are taken, nothing is unusual.
    """

    loss_spike: float = 0.0
    norm_spike: float = 0.0
    window: int = 100


CALM = Limits()  # only what is not finite is skipped


@flax.struct.dataclass
class Health:
    """Running statistics of the steps taken; part of the state of a run, so that they resume with it.

    Attributes:
      taken, skipped, skipped_in_a_row: int32 scalars, numbers of steps.
      loss_mean, loss_variance, norm_mean: float32 scalars.
    """

    taken: Any
    skipped: Any
    skipped_in_a_row: Any
    loss_mean: Any
    loss_variance: Any
    norm_mean: Any


def fresh() -> Health:
    """Of a run without steps; every field an array of its own, since a step is given them all to overwrite."""
    counts, means = [jnp.zeros((), jnp.int32) for _ in range(3)], [jnp.zeros((), jnp.float32) for _ in range(3)]
    return Health(*counts, *means)


def gradient_scale(health: Health, norm: jax.Array, limits: Limits) -> jax.Array:
    """The factor, at most 1, that brings a gradient of this norm to `norm_spike` times the usual norm."""
    if not limits.norm_spike:
        return jnp.ones((), norm.dtype)
    known = health.taken >= limits.window
    return jnp.where(known, jnp.minimum(1.0, limits.norm_spike * health.norm_mean / norm), 1.0)


def judge(health: Health, loss: jax.Array, norm: jax.Array, limits: Limits) -> tuple[jax.Array, Health]:
    """Whether to take a step with this loss and this norm of its (scaled) gradient, and the statistics after it.

    Mean and variance are the arithmetic ones of the first `window` steps and fade exponentially from then on.
    """
    take = jnp.isfinite(loss) & jnp.isfinite(norm)
    deviation = loss - health.loss_mean
    if limits.loss_spike:
        usual = deviation <= limits.loss_spike * jnp.sqrt(health.loss_variance)
        take &= usual | (health.taken < limits.window)
    weight = 1.0 / jnp.minimum(health.taken + 1, limits.window)
    after = Health(
        taken=health.taken + 1,
        skipped=health.skipped,
        skipped_in_a_row=jnp.zeros_like(health.skipped_in_a_row),
        loss_mean=health.loss_mean + weight * deviation,
        loss_variance=(1 - weight) * (health.loss_variance + weight * deviation**2),
        norm_mean=health.norm_mean + weight * (norm - health.norm_mean),
    )
    without = health.replace(skipped=health.skipped + 1, skipped_in_a_row=health.skipped_in_a_row + 1)
    return take, choose(take, after, without)


def choose(condition: jax.Array, one: Any, other: Any) -> Any:
    """The first tree where the scalar condition holds, else the second."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
