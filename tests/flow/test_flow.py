"""Paths, times, schedules and solvers against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.errors import UsageError
from vidflow.flow import guidance, objectives, paths, schedules, solvers, times


def test_linear_path_is_noise_at_0_and_data_at_1_up_to_s_min():
    x1, x0 = jnp.full((2, 3), 5.0), jnp.full((2, 3), -1.0)
    path = paths.linear(s_min=0.01)
    np.testing.assert_array_equal(paths.interpolate(path, x1, x0, jnp.zeros(2)), x0)
    np.testing.assert_allclose(paths.interpolate(path, x1, x0, jnp.ones(2)), 5.0 - 0.01, rtol=1e-6)


def test_velocity_is_the_time_derivative_of_the_path():
    x1, x0 = jax.random.normal(jax.random.key(0), (2, 4, 3))
    path = paths.linear(s_min=0.1)
    t = jnp.array([0.1, 0.4, 0.6, 0.9])
    _, derivative = jax.jvp(lambda t: paths.interpolate(path, x1, x0, t), (t,), (jnp.ones(4),))
    np.testing.assert_allclose(paths.velocity(path, x1, x0, t), derivative, rtol=1e-5)
    np.testing.assert_allclose(paths.velocity(path, x1, x0, t), x1 - 0.9 * x0, rtol=1e-5)


def test_a_time_per_frame_broadcasts_over_frames_only():
    x1, x0 = jnp.ones((2, 3, 4, 4, 1)), jnp.zeros((2, 3, 4, 4, 1))
    t = jnp.arange(6.0).reshape(2, 3) / 6
    x = paths.interpolate(paths.linear(), x1, x0, t)
    np.testing.assert_allclose(x[:, :, 0, 0, 0], t, rtol=1e-6)
    assert x.shape == x1.shape


def test_logit_normal_has_its_median_at_the_sigmoid_of_the_mean():
    keys = jax.random.split(jax.random.key(0), 4000)
    t = jax.vmap(times.logit_normal(-0.8, 1.0))(keys)
    assert abs(float((t < jax.nn.sigmoid(-0.8)).mean()) - 0.5) < 0.03
    assert float(t.min()) > 0 and float(t.max()) < 1
    quartile = jnp.quantile(jax.vmap(times.logit_normal())(keys), 0.75)
    assert abs(float(quartile) - jax.nn.sigmoid(0.6745)) < 0.02


def test_linear_quadratic_schedule_has_small_equal_steps_then_grows_to_one():
    t = schedules.linear_quadratic(50, reference=250)
    steps = np.diff(t)
    np.testing.assert_allclose(steps[:25], 1 / 250)
    assert t[0] == 0 and t[-1] == pytest.approx(1.0, abs=1e-12)
    assert np.all(np.diff(steps[25:]) > 0)
    # The slope is continuous where the quadratic begins, and its last step is the 0.067 of the closed form.
    assert steps[25] == pytest.approx(1 / 250 + (1 - 50 / 250) / 25**2)
    assert steps[-1] == pytest.approx(0.004 + 0.8 * (1 - (24 / 25) ** 2))


@pytest.mark.parametrize("call", [lambda: schedules.uniform(0), lambda: schedules.linear_quadratic(1)])
def test_too_few_steps_are_refused(call):
    with pytest.raises(UsageError, match="sampling step"):
        call()


def test_linear_quadratic_refuses_a_reference_coarser_than_itself():
    with pytest.raises(UsageError, match="at least 50 uniform steps"):
        schedules.linear_quadratic(50, reference=40)


def test_euler_has_order_one_on_an_exponential():
    x0 = jnp.ones((1, 1))
    errors = [
        abs(float(solvers.euler(lambda x, t: x, x0, schedules.uniform(n))[0, 0]) - np.e) for n in (50, 100, 200)
    ]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(orders, 1.0, atol=0.05)


def test_euler_hands_the_model_the_time_at_the_start_of_each_step():
    # dx/dt = 2t: with left end points on n equal steps the sum is 1 - 1/n.
    x = solvers.euler(lambda x, t: jnp.full_like(x, 2 * t), jnp.zeros((1, 1)), schedules.uniform(10))
    assert float(x[0, 0]) == pytest.approx(0.9, abs=1e-6)


def test_sampling_a_gaussian_with_its_closed_form_velocity_gives_its_mean_and_deviation():
    mean, deviation = 2.0, 0.5

    def velocity(x, t):
        # x_t = t x1 + (1 - t) x0 is Gaussian; E[x1 - x0 | x_t] by the linear regression of a Gaussian pair.
        variance = (t * deviation) ** 2 + (1 - t) ** 2
        covariance = t * deviation**2 - (1 - t)
        return mean + covariance / variance * (x - t * mean)

    x0 = jax.random.normal(jax.random.key(0), (20_000, 1))
    x1 = solvers.euler(velocity, x0, schedules.uniform(200))
    assert float(x1.mean()) == pytest.approx(mean, abs=0.02)
    assert float(x1.std()) == pytest.approx(deviation, abs=0.02)


def test_flow_matching_is_minimal_at_the_conditional_mean_velocity():
    path, density = paths.linear(0.0), times.uniform()
    keys = jax.random.split(jax.random.key(0), 4096)
    x1 = jnp.full((4096, 1), 3.0)  # one datum: the velocity towards it is (x1 - x_t) / (1 - t), with no error left

    def loss(velocity):
        return float(objectives.flow_matching(velocity, keys, x1, path=path, times=density)[0].mean())

    exact = loss(lambda x, t: (3.0 - x) / (1 - t[:, None]))
    assert exact < 1e-4
    assert loss(lambda x, t: jnp.zeros_like(x)) == pytest.approx(10.0, rel=0.05)  # E (3 - x0)^2


def test_a_row_of_flow_matching_does_not_depend_on_the_other_rows():
    keys = jax.random.split(jax.random.key(1), 4)
    x1 = jax.random.normal(jax.random.key(2), (4, 2, 3))
    options = {"path": paths.linear(), "times": times.logit_normal()}
    whole, t = objectives.flow_matching(lambda x, t: 0.5 * x, keys, x1, **options)
    part, t_part = objectives.flow_matching(lambda x, t: 0.5 * x, keys[2:], x1[2:], **options)
    np.testing.assert_array_equal(whole[2:], part)
    np.testing.assert_array_equal(t[2:], t_part)
    assert len(np.unique(np.asarray(t))) == 4


def test_loss_by_time_averages_within_buckets():
    loss = objectives.loss_by_time(jnp.array([1.0, 3.0, 5.0]), jnp.array([0.01, 0.05, 0.999]))
    assert float(loss[0]) == 2.0 and float(loss[9]) == 5.0
    assert np.isnan(np.asarray(loss[1:9])).all()


def test_guidance_extrapolates_from_the_null_condition():
    calls = []

    def model(x, t, condition):
        calls.append(x.shape[0])
        return condition * jnp.ones_like(x)

    x = jnp.zeros((3, 2))
    condition, null = jnp.full((3, 1), 2.0), jnp.full((3, 1), 1.0)
    guided = guidance.classifier_free(model, condition, null, 4.0)
    np.testing.assert_allclose(guided(x, jnp.zeros(())), 1.0 + 4.0 * (2.0 - 1.0))
    assert calls == [6]  # one call on the doubled batch
    np.testing.assert_allclose(guidance.classifier_free(model, condition, null, 1.0)(x, jnp.zeros(())), 2.0)
    assert calls == [6, 3]
