"""One training step: a pure function (state, batch) -> (state, metrics)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vidflow.training.state import State
from vidflow.typing import RowKeys

Metrics = dict[str, jax.Array]
# (params, row keys, batch) -> (loss, metrics); the mean over rows of what each row gives by itself.
Objective = Callable[[Any, RowKeys, dict[str, jax.Array]], tuple[jax.Array, Metrics]]


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema_decay: float,
    microbatches: int = 1,
    view: Callable[[Any], Any] = lambda params: params,
) -> Callable[[State, dict[str, jax.Array]], tuple[State, Metrics]]:
    """The step function, to be jitted with the state donated.

    Randomness of row r at step s is `fold_in(fold_in(key(seed), s), r)`: it depends neither on the batch size nor on
    how rows are spread over devices. `batch["row"]` holds the global row numbers. With several microbatches their
    gradients are added up in float32 one after another, so that activations of only one exist at a time.
    The objective sees `view(params)` and is differentiated by it: a view in half precision has half as large gradients.
    """
    gradient_of = jax.value_and_grad(objective, has_aux=True)

    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, Metrics]:
        keys = row_keys(seed, state.step, batch["row"])
        (loss, metrics), gradient = _accumulate(gradient_of, view(state.params), keys, batch, microbatches)
        gradient = jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, state.params)
        update, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, update)
        # A young average forgets its start: the decay grows from 0.1 to its final value.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient), **metrics}
        return State(params, opt_state, ema, state.step + 1), metrics

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

    def add(sums: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], None]:
        new = gradient_of(params, *part)
        totals = jax.tree.map(lambda total, x: total + jnp.nan_to_num(x.astype(jnp.float32), nan=0.0), sums[0], new)
        return (totals, jax.tree.map(lambda count, x: count + ~jnp.isnan(x), sums[1], new[0])), None

    (totals, counts), _ = jax.lax.scan(add, (zeros, zeros[0]), parts)
    return jax.tree.map(jnp.divide, totals[0], counts), jax.tree.map(lambda x: x / microbatches, totals[1])


def row_keys(seed: int, step: jax.Array | int, rows: jax.Array) -> RowKeys:
    """`fold_in(fold_in(key(seed), step), row)` for each row."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
