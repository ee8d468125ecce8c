"""A step: its randomness, its average, its indifference to how the batch is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vidflow.training.state import fresh
from vidflow.training.step import make_step, row_keys


def objective(params, keys, batch):
    noise = jax.vmap(lambda key: jax.random.normal(key))(keys)
    error = params["w"] * batch["x"] + noise
    return jnp.square(error).mean(), {"noise": noise.mean()}


RATE = optax.constant_schedule(1.0)


def state(w=1.0, step=0):
    return fresh({"w": jnp.asarray(w)}, optax.sgd(0.1)).replace(step=jnp.asarray(step, jnp.int32))


def batch(rows):
    numbers = jnp.asarray(rows, jnp.int32)
    return {"x": numbers.astype(jnp.float32), "row": numbers, "index": numbers}


def test_keys_are_folded_by_step_then_row():
    expected = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 7), 2)
    keys = row_keys(3, 7, jnp.array([0, 2]))
    np.testing.assert_array_equal(jax.random.key_data(keys[1]), jax.random.key_data(expected))


def test_the_gradient_of_a_batch_is_the_mean_of_the_gradients_of_its_parts():
    def gradient(rows):
        keys = row_keys(0, 5, batch(rows)["row"])
        return jax.grad(lambda p: objective(p, keys, batch(rows))[0])({"w": jnp.asarray(1.0)})["w"]

    whole, first, second = gradient([0, 1, 2, 3]), gradient([0, 1]), gradient([2, 3])
    np.testing.assert_allclose(whole, (first + second) / 2, rtol=1e-6)


def test_a_step_is_a_function_of_the_state_and_the_batch():
    step = jax.jit(make_step(objective, optax.sgd(0.1), RATE, seed=0, ema_decay=0.9))
    a, metrics = step(state(), batch([0, 1]))
    b, _ = step(state(), batch([0, 1]))
    np.testing.assert_array_equal(a.params["w"], b.params["w"])
    assert int(a.step) == 1 and {"loss", "gradient_norm", "learning_rate", "data", "noise"} <= set(metrics)
    later, _ = step(state(step=1), batch([0, 1]))
    assert float(later.params["w"]) != float(a.params["w"])  # another step draws other noise


def test_the_average_forgets_its_start_and_then_moves_at_its_decay():
    step = make_step(objective, optax.sgd(0.1), RATE, seed=0, ema_decay=0.9)
    young, _ = step(state(), batch([0, 1]))
    np.testing.assert_allclose(young.ema["w"], 0.1 * 1.0 + 0.9 * young.params["w"], rtol=1e-6)
    old, _ = step(state(step=1000), batch([0, 1]))
    np.testing.assert_allclose(old.ema["w"], 0.9 * 1.0 + 0.1 * old.params["w"], rtol=1e-6)


def test_microbatches_change_nothing_but_rounding():
    """Among the metrics one that is missing in some microbatches."""

    def with_a_gap(params, keys, batch):
        loss, metrics = objective(params, keys, batch)
        return loss, metrics | {"first": jnp.where(batch["row"].min() == 0, loss, jnp.nan)}

    optimizer = optax.sgd(0.1)
    results = [
        jax.jit(make_step(with_a_gap, optimizer, RATE, seed=0, ema_decay=0.9, microbatches=n))(state(), batch(range(8)))
        for n in (1, 2, 4)
    ]
    for after, metrics in results[1:]:
        np.testing.assert_allclose(after.params["w"], results[0][0].params["w"], rtol=1e-6)
        for name in ("loss", "noise", "gradient_norm"):
            np.testing.assert_allclose(metrics[name], results[0][1][name], rtol=1e-6)
    keys = row_keys(0, 0, jnp.array([0, 4]))
    alone = objective({"w": jnp.asarray(1.0)}, keys, batch([0, 4]))[0]
    np.testing.assert_allclose(results[2][1]["first"], alone, rtol=1e-6)  # rows 0 and 4 are the first of four
