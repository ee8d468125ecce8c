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
    objective: Objective, optimizer: optax.GradientTransformation, *, seed: int, ema_decay: float
) -> Callable[[State, dict[str, jax.Array]], tuple[State, Metrics]]:
    """The step function, to be jitted with the state donated.

    Randomness of row r at step s is `fold_in(fold_in(key(seed), s), r)`: it depends neither on the batch size nor on
    how rows are spread over devices. `batch["row"]` holds the global row numbers.
    """

    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, Metrics]:
        keys = row_keys(seed, state.step, batch["row"])
        (loss, metrics), gradient = jax.value_and_grad(objective, has_aux=True)(state.params, keys, batch)
        update, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, update)
        # A young average forgets its start: the decay grows from 0.1 to its final value.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient), **metrics}
        return State(params, opt_state, ema, state.step + 1), metrics

    return step


def row_keys(seed: int, step: jax.Array | int, rows: jax.Array) -> RowKeys:
    """`fold_in(fold_in(key(seed), step), row)` for each row."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
