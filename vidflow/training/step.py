"""One training step: a pure function (state, batch) -> (state, metrics)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vidflow.training import digests, health
from vidflow.training.state import State
from vidflow.typing import RowKeys

Metrics = dict[str, jax.Array]
# (params, row keys, batch) -> (loss, metrics); the mean over rows of what each row gives by itself.
Objective = Callable[[Any, RowKeys, dict[str, jax.Array]], tuple[jax.Array, Metrics]]


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    rate: optax.Schedule,
    *,
    seed: int | jax.Array,
    ema_decay: float,
    limits: health.Limits = health.CALM,
    microbatches: int = 1,
    view: Callable[[Any], Any] = lambda params: params,
) -> Callable[[State, dict[str, jax.Array]], tuple[State, Metrics]]:
    """The step function, to be jitted with the state donated.

    The optimizer gives the update at a learning rate of 1, and `rate` the learning rate of each step. A step that
    `health.judge` does not take leaves parameters, moments and average as they were.

    Randomness of row r at step s is `fold_in(fold_in(key(seed), s), r)`: it depends neither on the batch size nor on
    how rows are spread over devices. `batch["row"]` holds the global row numbers, `batch["index"]` which examples of
    the source they are; the metric `data` is a digest of both. With several microbatches their
    gradients are added up in float32 one after another, so that activations of only one exist at a time.
    The objective sees `view(params)` and is differentiated by it: a view in half precision has half as large gradients.
    It also sees the step, in every row of `batch["step"]`.
    """
    gradient_of = jax.value_and_grad(objective, has_aux=True)

    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, Metrics]:
        keys = row_keys(seed, state.step, batch["row"])
        seen = batch | {"step": jnp.full_like(batch["row"], state.step)}
        (loss, metrics), gradient = _accumulate(gradient_of, view(state.params), keys, seen, microbatches)
        gradient = jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, state.params)
        norm = optax.tree.norm(gradient)
        scale = health.gradient_scale(state.health, norm, limits)
        gradient = optax.tree.scale(scale, gradient)
        take, condition = health.judge(state.health, loss, scale * norm, limits)
        update, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, optax.tree.scale(rate(state.step), update))
        # A young average forgets its start: the decay grows from 0.1 to its final value.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        learnt = health.choose(take, (params, opt_state, ema), (state.params, state.opt_state, state.ema))
        own = {"loss": loss, "gradient_norm": norm, "learning_rate": rate(state.step), "data": data_digest(batch)}
        own |= {"skipped": condition.skipped, "skipped_in_a_row": condition.skipped_in_a_row}
        return State(*learnt, condition, state.step + 1), own | metrics

    return step


def _accumulate(gradient_of: Callable[..., Any], params: Any, keys: RowKeys, batch: Any, microbatches: int) -> Any:
    """((loss, metrics), gradient) of the whole batch, each the mean over microbatches; a metric that is NaN in some
    (a time bucket without a row) over the others."""
    if microbatches == 1:
        return gradient_of(params, keys, batch)

    # Row r goes to microbatch r modulo their number: each then has rows of every device.
    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), (keys, batch))
    one = jax.eval_shape(gradient_of, params, *jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), one)

    def add(sums: tuple[Any, Any, Any], part: Any) -> tuple[tuple[Any, Any, Any], None]:
        (loss, metrics), gradient = gradient_of(params, *part)
        totals = jax.tree.map(lambda total, x: total + x.astype(jnp.float32), sums[0], (loss, gradient))
        known = jax.tree.map(lambda total, x: total + jnp.where(jnp.isnan(x), 0.0, x), sums[1], metrics)
        return (totals, known, jax.tree.map(lambda count, x: count + ~jnp.isnan(x), sums[2], metrics)), None

    (loss, metrics), gradient = zeros
    (totals, known, counts), _ = jax.lax.scan(add, ((loss, gradient), metrics, metrics), parts)
    loss, gradient = jax.tree.map(lambda x: x / microbatches, totals)
    return (loss, jax.tree.map(jnp.divide, known, counts)), gradient


def data_digest(batch: dict[str, jax.Array]) -> jax.Array:
    """A number (uint32) that tells which example lay in which row: equal batches have equal numbers on any mesh."""
    index, row = batch["index"].astype(jnp.uint32), batch["row"].astype(jnp.uint32)
    return digests.mixed(index + digests.mixed(row + 1)).sum(dtype=jnp.uint32)


def row_keys(seed: int | jax.Array, step: jax.Array | int, rows: jax.Array) -> RowKeys:
    """`fold_in(fold_in(key(seed), step), row)` for each row."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
