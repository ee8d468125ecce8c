"""Which steps are taken, and what a step that is not taken leaves behind."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vidflow.flow import objectives
from vidflow.training import health
from vidflow.training.state import fresh
from vidflow.training.step import data_digest, make_step


def objective(params, keys, batch):
    """Its gradient is the mean of x."""
    return (params["w"] * batch["x"]).mean(), {}


def batch(*x):
    numbers = jnp.arange(len(x))
    return {"x": jnp.asarray(x, jnp.float32), "row": numbers, "index": numbers}


def run(batches, limits=health.CALM, microbatches=1, rate=0.1):
    optimizer, rate = optax.adam(1.0), optax.constant_schedule(rate)
    step = jax.jit(
        make_step(objective, optimizer, rate, seed=0, ema_decay=0.9, limits=limits, microbatches=microbatches)
    )
    state = fresh({"w": jnp.asarray(1.0)}, optimizer)
    states, metrics = [state], []
    for one in batches:
        state, said = step(state, one)
        states.append(state)
        metrics.append(said)
    return states, metrics


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(bad, microbatches):
    states, metrics = run([batch(1, 2), batch(1, bad), batch(3, 4)], microbatches=microbatches)
    _, before, after, last = states
    for name in ("params", "opt_state", "ema"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before, name), getattr(after, name))
    assert int(after.step) == 2 and int(after.health.skipped) == 1 and int(metrics[1]["skipped_in_a_row"]) == 1
    assert not np.isfinite(metrics[1]["loss"])
    assert float(last.params["w"]) != float(after.params["w"]) and int(metrics[2]["skipped_in_a_row"]) == 0
    assert int(last.health.skipped) == 1 and int(last.health.taken) == 2


def test_a_gradient_that_is_not_finite_is_skipped_though_its_loss_is():
    def rooted(params, keys, batch):
        return jnp.sqrt(params["w"] * batch["x"]).mean(), {}

    step = make_step(rooted, optax.sgd(1.0), optax.constant_schedule(1.0), seed=0, ema_decay=0.9)
    state, metrics = step(fresh({"w": jnp.asarray(1.0)}, optax.sgd(1.0)), batch(0.0))
    assert np.isfinite(metrics["loss"]) and int(state.health.skipped) == 1 and float(state.params["w"]) == 1.0


def test_the_statistics_are_mean_and_variance_of_the_steps_taken():
    rng = np.random.default_rng(0)
    losses, norms = rng.normal(3, 1, 50).astype(np.float32), rng.uniform(1, 2, 50).astype(np.float32)
    here = health.fresh()
    for loss, norm in zip(losses, norms, strict=True):
        _, here = health.judge(here, jnp.asarray(loss), jnp.asarray(norm), health.Limits(window=100))
    np.testing.assert_allclose(here.loss_mean, losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(here.loss_variance, losses.var(), rtol=1e-5)
    np.testing.assert_allclose(here.norm_mean, norms.mean(), rtol=1e-5)
    for _ in range(200):  # beyond the window the past fades
        _, here = health.judge(here, jnp.asarray(7.0), jnp.asarray(1.0), health.Limits(window=20))
    np.testing.assert_allclose(here.loss_mean, 7.0, rtol=1e-3)
    assert float(here.loss_variance) < 0.01


def test_a_loss_far_above_its_mean_is_skipped_once_the_mean_is_known():
    calm = [batch(1.0 + 0.01 * (k % 3)) for k in range(20)]
    limits = health.Limits(loss_spike=6.0, window=10)
    states, metrics = run([batch(100.0), *calm[1:]], limits, rate=0.0)  # at the start nothing is known
    assert int(states[-1].health.skipped) == 0
    states, metrics = run([*calm, batch(100.0), batch(1.0)], limits, rate=0.0)
    assert [int(m["skipped"]) for m in metrics[-3:]] == [0, 1, 1]
    assert int(run([*calm, batch(100.0)], health.CALM, rate=0.0)[0][-1].health.skipped) == 0


def test_a_gradient_far_above_the_usual_is_scaled_down_to_a_multiple_of_it():
    here = health.fresh().replace(taken=jnp.int32(10), norm_mean=jnp.float32(2.0))
    limits = health.Limits(norm_spike=3.0, window=10)
    assert float(health.gradient_scale(here, jnp.float32(12.0), limits)) == 0.5
    assert float(health.gradient_scale(here, jnp.float32(5.0), limits)) == 1.0
    assert float(health.gradient_scale(here.replace(taken=jnp.int32(9)), jnp.float32(12.0), limits)) == 1.0
    assert float(health.gradient_scale(here, jnp.float32(12.0), health.CALM)) == 1.0

    optimizer, rate = optax.sgd(1.0), optax.constant_schedule(1.0)
    step = make_step(objective, optimizer, rate, seed=0, ema_decay=0.9, limits=limits)
    state, metrics = step(fresh({"w": jnp.asarray(1.0)}, optimizer).replace(health=here), batch(12.0))
    assert float(state.params["w"]) == -5.0 and float(metrics["gradient_norm"]) == 12.0


def test_the_rate_follows_the_step_and_not_the_updates():
    optimizer, rates = optax.sgd(1.0), jnp.asarray([1.0, 10.0, 100.0])
    step = make_step(objective, optimizer, lambda count: rates[count], seed=0, ema_decay=0.9)
    state = fresh({"w": jnp.asarray(0.0)}, optimizer)
    for one in (batch(1.0), batch(np.nan), batch(1.0)):
        state, metrics = step(state, one)
    assert float(state.params["w"]) == -101.0 and float(metrics["learning_rate"]) == 100.0


def test_the_digest_of_the_data_tells_examples_and_rows_apart_but_not_their_order():
    def digest(index, row):
        return int(data_digest({"index": jnp.asarray(index), "row": jnp.asarray(row)}))

    assert digest([5, 9], [0, 1]) == digest([9, 5], [1, 0])
    others = [digest([9, 5], [0, 1]), digest([5, 8], [0, 1]), digest([5, 5], [0, 1]), digest([6, 8], [0, 1])]
    assert len({digest([5, 9], [0, 1]), *others}) == 5


def test_a_time_whose_loss_is_not_finite_is_told_from_one_without_rows():
    by_time = objectives.loss_by_time(jnp.asarray([1.0, jnp.nan, 3.0]), jnp.asarray([0.05, 0.15, 0.05]))
    assert float(by_time[0]) == 2.0 and np.isposinf(by_time[1]) and np.isnan(by_time[2:]).all()
