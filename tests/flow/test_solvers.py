"""Solvers on mixtures of Gaussians, in float64: orders of convergence, and one trajectory whatever is predicted."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.flow.mixtures import Mixture, mixture
from tests.flow.test_paths import PATHS, TARGETS
from vidflow.errors import UsageError
from vidflow.flow import adaptive, likelihood, multistep, paths, schedules, solvers, stochastic, targets
from vidflow.linear import linear

LOW, HIGH = 1e-3, 1 - 1e-3
ORDERS = {  # how it is made, its order, two numbers of steps
    "euler": (lambda path: solvers.euler(), 1, (256, 512)),
    "midpoint": (lambda path: solvers.midpoint(), 2, (256, 512)),
    "heun": (lambda path: solvers.heun(), 2, (256, 512)),
    "ddim": (multistep.ddim, 1, (256, 512)),
    "dpm_solver": (multistep.dpm_solver, 2, (256, 512)),
    "unipc": (multistep.unipc, 3, (2048, 4096)),
    "dormand_prince": (lambda path: adaptive.dormand_prince(0.0), 5, (256, 384)),
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def between(steps, low=LOW, high=HIGH):
    return schedules.within(schedules.uniform()(steps), low, high)


def solved(solver, velocity, x0, times):
    return jax.jit(lambda x: solver(velocity, x, times))(x0)


@pytest.mark.parametrize("dimensions", [1, 64])
@pytest.mark.parametrize("name", ORDERS)
def test_a_solver_has_its_order(name, dimensions):
    make, order, steps = ORDERS[name]
    path, world = paths.cosine(), mixture(dimensions)
    if order == 5:  # on a smoother problem its errors are rounding before the term of fifth order shows
        path, world = paths.variance_preserving(), world._replace(deviations=0.1 * (1 + 0.2 * jnp.arange(3)))
    x0 = jax.random.normal(jax.random.key(1), (8, dimensions))

    def velocity(x, t):
        return world.velocity(path, x, t)

    truth = solved(adaptive.dormand_prince(1e-14), velocity, x0, np.array([LOW, HIGH]))
    errors = [float(jnp.abs(solved(make(path), velocity, x0, between(n)) - truth).max()) for n in steps]
    observed = np.log(errors[0] / errors[1]) / np.log(steps[1] / steps[0])
    assert abs(observed - order) < 0.2, (errors, observed)


def test_memory_brings_few_steps_from_noise_to_data_nearer():
    """The last step covers nearly all of the logarithm of the signal-to-noise ratio."""
    path, world = paths.linear(1e-5), mixture(2)
    x0 = jax.random.normal(jax.random.key(1), (64, 2))

    def velocity(x, t):
        return world.velocity(path, x, t)

    truth = solved(solvers.heun(), velocity, x0, between(4000, 0.0, 1.0))
    ends = [solved(make(path), velocity, x0, between(25, 0.0, 1.0)) for make in (multistep.dpm_solver, multistep.unipc)]
    second, third = (float(jnp.abs(end - truth).mean()) for end in ends)
    first = float(jnp.abs(solved(solvers.euler(), velocity, x0, between(25, 0.0, 1.0)) - truth).mean())
    assert first > 10 * second > 15 * third


@pytest.mark.parametrize("path", PATHS)
def test_every_target_gives_the_same_trajectory(path):
    path, world = PATHS[path], mixture(2)
    x0, wanted = jax.random.normal(jax.random.key(1), (8, 2)), targets.data()
    ends = []
    for target in TARGETS.values():

        def network(seen, t, target=target):
            x = seen / target.input_scale(path, t)
            return targets.convert(wanted, target, path, world.data(path, x, t), x, t)

        field = targets.as_velocity(network, target, path)
        ends.append(solved(solvers.heun(), field, x0, between(40)))
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], atol=1e-8)


@pytest.mark.parametrize("solver", [multistep.ddim, multistep.dpm_solver, multistep.unipc])
@pytest.mark.parametrize("path", ["linear", "zero_snr", "cosine"])
def test_history_serves_from_pure_noise_to_pure_data(solver, path):
    """Where log(alpha / sigma) is infinite, at both ends, the step is the exact one of a constant datum."""
    path, world = PATHS[path], mixture(2)
    x0 = jax.random.normal(jax.random.key(1), (8, 2))

    def field(x, t):
        return targets.convert(targets.data(), targets.velocity(), path, world.data(path, x, t), x, t)

    x = solved(solver(path), field, x0, schedules.uniform()(200))
    truth = solved(adaptive.dormand_prince(1e-9), field, x0, np.array([1e-6, 1 - 1e-6]))
    np.testing.assert_allclose(x, truth, atol=0.03)


def test_ddim_on_the_linear_path_is_euler():
    path, world = paths.linear(), mixture(2)
    x0 = jax.random.normal(jax.random.key(1), (8, 2))

    def velocity(x, t):
        return world.velocity(path, x, t)

    ends = [solved(s, velocity, x0, schedules.uniform()(10)) for s in (multistep.ddim(path), solvers.euler())]
    np.testing.assert_allclose(*ends, atol=1e-10)


def test_noise_during_sampling_has_weak_order_one_and_keeps_the_distribution():
    """The variance of a Gaussian, from many samples: biased by an amount that halves with the step."""
    path, deviation = paths.linear(0.0), 1.0
    world = Mixture(jnp.zeros((1, 1)), jnp.array([deviation]))
    sample = 1_000_000
    start = jnp.sqrt((path.alpha(LOW) * deviation) ** 2 + path.sigma(LOW) ** 2)
    x0 = start * jax.random.normal(jax.random.key(0), (sample, 1))
    x0 = x0 / x0.std() * start
    exact = (path.alpha(HIGH) * deviation) ** 2 + path.sigma(HIGH) ** 2
    solver = stochastic.euler_maruyama(path, jax.random.split(jax.random.key(1), sample))
    biases = [
        float(solved(solver, lambda x, t: world.velocity(path, x, t), x0, between(steps)).var() - exact)
        for steps in (16, 32)
    ]
    assert abs(np.log2(abs(biases[0] / biases[1])) - 1) < 0.2, biases


def test_noise_of_a_row_does_not_depend_on_the_other_rows():
    path, world = paths.linear(), mixture(2)
    x0 = jax.random.normal(jax.random.key(1), (8, 2))
    keys = jax.random.split(jax.random.key(3), 8)

    def velocity(x, t):
        return world.velocity(path, x, t)

    whole = solved(stochastic.euler_maruyama(path, keys), velocity, x0, schedules.uniform()(10))
    some = solved(stochastic.euler_maruyama(path, keys[5:]), velocity, x0[5:], schedules.uniform()(10))
    np.testing.assert_allclose(some, whole[5:], atol=1e-12)
    assert np.abs(np.asarray(whole - solved(solvers.euler(), velocity, x0, schedules.uniform()(10)))).min() > 1e-3


@pytest.mark.parametrize("dimensions", [1, 8])
def test_the_likelihood_is_that_of_the_mixture(dimensions):
    path, world = paths.linear(0.0), mixture(dimensions)
    x1 = world.means[jnp.arange(6) % 3] + 0.4 * jax.random.normal(jax.random.key(1), (6, dimensions))

    def velocity(x, t):
        return world.velocity(path, x, t)

    found = jax.jit(lambda x: likelihood.log_likelihood(velocity, x, likelihood.exact(), end=HIGH, tolerance=1e-7))(x1)
    np.testing.assert_allclose(found, world.log_density(path, x1, jnp.asarray(HIGH)), atol=1e-4)


def test_the_estimated_trace_is_right_on_average():
    path, world = paths.linear(0.0), mixture(4)
    x1 = world.means[jnp.arange(6) % 3] + 0.4 * jax.random.normal(jax.random.key(1), (6, 4))
    trace = likelihood.hutchinson(jax.random.key(2), probes=256)
    found = jax.jit(
        lambda x: likelihood.log_likelihood(lambda x, t: world.velocity(path, x, t), x, trace, end=HIGH)
    )(x1)
    truth = world.log_density(path, x1, jnp.asarray(HIGH))
    assert float(found.mean()) == pytest.approx(float(truth.mean()), rel=0.01)


def test_a_likelihood_of_our_own_layers():
    """They have a derivative backwards alone. Of a linear field A the divergence is tr A, and the flow is exp(A)."""
    layer = Linear(3)
    params = layer.init(jax.random.key(0), jnp.ones((1, 3)))
    matrix = 0.5 * nn.unbox(params)["params"]["it"]["kernel"]
    x1 = jax.random.normal(jax.random.key(1), (4, 3))
    traces = (likelihood.exact(), likelihood.hutchinson(jax.random.key(2), probes=4000))
    x0 = x1 @ jax.scipy.linalg.expm(-matrix)
    truth = -0.5 * (x0**2).sum(axis=1) - 1.5 * np.log(2 * np.pi) - jnp.trace(matrix)
    for divergence, tolerance in zip(traces, (1e-4, 0.05), strict=True):
        found = likelihood.log_likelihood(lambda x, t: 0.5 * layer.apply(params, x), x1, divergence)
        np.testing.assert_allclose(found, truth, atol=tolerance)


class Linear(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        return linear(x[:, None], "it", self.features, ("embed", "mlp"), x.dtype)[:, 0]


@pytest.mark.parametrize("make", [solvers.euler, solvers.midpoint, solvers.heun])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_no_velocity_is_asked_for_at_the_last_time(make, steps):
    asked = []

    def velocity(x, t):
        jax.debug.callback(lambda t: asked.append(float(t)), t)
        return x

    solved(make(), velocity, jnp.ones((1, 1)), schedules.uniform()(steps)).block_until_ready()
    jax.effects_barrier()
    assert max(asked) < 1


def test_steps_that_become_ever_shorter_end_without_a_sample():
    x = solved(adaptive.dormand_prince(), lambda x, t: 1 / (0.5 - t) ** 2 + x, jnp.ones((2, 1)), np.array([0.0, 1.0]))
    assert np.isnan(x).all()


@pytest.mark.parametrize("solver", [multistep.dpm_solver, multistep.unipc])
def test_one_step_is_too_few_for_a_solver_with_history(solver):
    with pytest.raises(UsageError, match="needs 2 steps, and there is 1"):
        solver(paths.linear())(lambda x, t: x, jnp.ones((1, 1)), np.array([0.0, 1.0]))


def test_euler_hands_the_model_the_time_at_the_start_of_each_step():
    # dx/dt = 2t: with left end points on n equal steps the sum is 1 - 1/n.
    x = solvers.euler()(lambda x, t: jnp.full_like(x, 2 * t), jnp.zeros((1, 1)), schedules.uniform()(10))
    assert float(x[0, 0]) == pytest.approx(0.9, abs=1e-6)
