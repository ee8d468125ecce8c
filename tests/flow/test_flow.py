"""Times, schedules, the objective, couplings and guidance against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow import settings
from vidflow.errors import UsageError
from vidflow.flow import couplings, guidance, objectives, paths, schedules, solvers, targets, times
from vidflow.tasks import flow_parts


def recipe(**options):
    usual = {"path": paths.linear(0.0), "target": targets.velocity(), "times": times.uniform()}
    return objectives.Recipe(**{**usual, "coupling": couplings.independent(), **options})


def drawn(density, count=4000, **options):
    return times.draw(density, jax.random.split(jax.random.key(0), count), **options)


def test_logit_normal_has_its_median_at_the_sigmoid_of_the_mean():
    t = drawn(times.logit_normal(-0.8, 1.0))
    assert abs(float((t < jax.nn.sigmoid(-0.8)).mean()) - 0.5) < 0.03
    assert float(t.min()) > 0 and float(t.max()) < 1
    assert float(drawn(times.logit_normal(std=6.0)).max()) < 1  # to which the largest of them round
    quartile = jnp.quantile(drawn(times.logit_normal()), 0.75)
    assert abs(float(quartile) - jax.nn.sigmoid(0.6745)) < 0.02


@pytest.mark.parametrize(
    "density", [times.uniform(), times.logit_normal(), times.mode(), times.cosmap(), times.shifted(7.0)]
)
def test_quantiles_rise_within_the_unit_interval(density):
    t = np.asarray(density(jnp.linspace(1e-3, 1 - 1e-3, 200)))
    assert (np.diff(t) > 0).all() and 0 < t[0] and t[-1] < 1


@pytest.mark.parametrize(
    ("name", "spec", "why"),
    [
        ("times", "shifted:factor=0", "go from 1 to 1, and must grow"),
        ("times", "shifted:factor=-3", "no density of times"),
        ("times", "mode:scale=5", "no density of times"),
        ("times", "logit_normal:std=-1", "no density of times"),
        ("times", "logit_normal:std=nan", "no density of times"),
        ("path", "polynomial:power=0", "does not lead from noise"),
        ("path", "polynomial:power=-1", "does not lead from noise"),
        ("path", "variance_preserving:beta_min=-30", "does not lead from noise"),
        ("path", "tests.flow.test_flow.backwards", "turn a path that runs the other way with paths.reverse"),
    ],
)
def test_arguments_that_make_no_path_or_density_are_refused(name, spec, why):
    flow = settings.of_a_generator().flow
    flow[name] = spec
    with pytest.raises(UsageError, match=why):
        flow_parts.make_recipe(flow)


def backwards() -> paths.Path:
    return paths.reverse(paths.linear())


@pytest.mark.parametrize("path", flow_parts.PARTS["flow.path"].names())
@pytest.mark.parametrize("density", flow_parts.PARTS["flow.times"].names())
def test_what_there_is_passes_the_checks_even_while_tracing(path, density):
    flow = settings.of_a_generator().flow
    flow.path, flow.times = path, density
    jax.jit(lambda: flow_parts.make_recipe(flow) and 0)()


def test_schedules_and_intervals_that_cannot_be_are_refused():
    config = settings.of_a_generator()
    sampling = config.sampling
    for factor in (0, -3):
        sampling.schedule = f"shifted:factor={factor}"
        with pytest.raises(UsageError, match="do not grow"), np.errstate(invalid="ignore"):
            flow_parts.make_sampling_times(config, 5)
    sampling.guidance_shape = "interval:low=0.9,high=0.1"
    for low, high in ((0.9, 0.1), (5, 9), ("nan", 0.5)):
        with pytest.raises(UsageError, match="is none: times are from 0"):
            guidance.interval(3.0, float(low), float(high))
    with pytest.raises(UsageError, match="from t = 0.9 to 0.1 is none"):
        flow_parts.make_scale(sampling, 3.0, np.linspace(0, 1, 6))


def test_a_solver_that_asks_at_the_last_time_is_refused_where_the_target_says_nothing_there():
    config = settings.of_a_generator()
    config.flow.path = "variance_preserving"
    flow_parts.check_sampling(config)
    config.sampling.solver = "dormand_prince"
    with pytest.raises(UsageError, match="'velocity' cannot be sampled at t = 1, .* config.sampling.end"):
        flow_parts.check_sampling(config)
    config.sampling.end = 0.999
    flow_parts.check_sampling(config)


@pytest.mark.parametrize("solver", ["ddim", "dpm_solver", "unipc", "euler_maruyama"])
@pytest.mark.parametrize("target", ["rotation", "edm", "data"])
def test_a_solver_that_needs_what_the_path_does_not_tell_is_refused(solver, target):
    """Along a polynomial path nothing moves at t = 0."""
    config = settings.of_a_generator()
    config.flow.path, config.flow.target, config.sampling.solver = "polynomial", target, solver
    config.sampling.end = 0.999
    with pytest.raises(UsageError, match=f"solver={solver} takes the velocity apart.*config.sampling.start"):
        flow_parts.check_sampling(config)
    config.sampling.start = 0.01
    flow_parts.check_sampling(config)


def test_mode_gathers_in_the_middle_or_at_the_ends():
    spread = [float(jnp.abs(drawn(times.mode(scale)) - 0.5).mean()) for scale in (1.29, 0.0, -0.9)]
    assert spread[0] < 0.2 < 0.25 - 0.01 < spread[1] < 0.26 < spread[2]


def test_cosmap_gives_the_linear_path_the_noise_of_the_cosine_path():
    u = jnp.linspace(0.05, 0.95, 19)
    linear = paths.log_snr(paths.linear(0.0), times.cosmap()(u))
    np.testing.assert_allclose(linear, paths.log_snr(paths.cosine(), u), atol=1e-5)


def test_a_shift_takes_its_logarithm_from_the_logit():
    t = jnp.linspace(0.05, 0.95, 19)
    logit = lambda t: jnp.log(t) - jnp.log1p(-t)  # noqa: E731
    np.testing.assert_allclose(logit(times.shift(t, 3.0)), logit(t) - np.log(3.0), atol=1e-5)
    np.testing.assert_allclose(schedules.shifted(3.0)(18), times.shift(jnp.linspace(0, 1, 19), 3.0), atol=1e-6)


def test_stratified_times_have_one_in_each_part_whatever_the_split():
    rows = jnp.arange(64, 128)  # the second batch
    t = drawn(times.uniform(), 64, strata=(rows, 64))
    np.testing.assert_array_equal(jnp.floor(t * 64), jnp.arange(64))
    keys = jax.random.split(jax.random.key(0), 64)[32:]
    np.testing.assert_array_equal(times.draw(times.uniform(), keys, strata=(rows[32:], 64)), t[32:])


def test_frames_of_a_row_have_times_of_their_own_in_a_stratified_batch_too():
    t = drawn(times.uniform(), 256, frames=3, strata=(jnp.arange(256), 256))
    np.testing.assert_array_equal(jnp.floor(t[:, 0] * 256), jnp.arange(256))
    assert np.abs(np.corrcoef(np.asarray(t).T)[np.triu_indices(3, 1)]).max() < 0.2
    np.testing.assert_allclose(t.mean(axis=0), 0.5, atol=0.05)


def test_linear_quadratic_schedule_has_small_equal_steps_then_grows_to_one():
    t = schedules.linear_quadratic(reference=250)(50)
    steps = np.diff(t)
    np.testing.assert_allclose(steps[:25], 1 / 250)
    assert t[0] == 0 and t[-1] == pytest.approx(1.0, abs=1e-12)
    assert np.all(np.diff(steps[25:]) > 0)
    # The slope is continuous where the quadratic begins, and its last step is the 0.067 of the closed form.
    assert steps[25] == pytest.approx(1 / 250 + (1 - 50 / 250) / 25**2)
    assert steps[-1] == pytest.approx(0.004 + 0.8 * (1 - (24 / 25) ** 2))


@pytest.mark.parametrize(
    "make", [schedules.uniform, schedules.linear_quadratic, schedules.shifted, schedules.cosine]
)
def test_schedules_rise_from_noise_to_data(make):
    t = make()(10)
    assert t[0] == 0 and t[-1] == pytest.approx(1.0) and (np.diff(t) > 0).all() and len(t) == 11


@pytest.mark.parametrize("call", [lambda: schedules.uniform()(0), lambda: schedules.linear_quadratic()(1)])
def test_too_few_steps_are_refused(call):
    with pytest.raises(UsageError, match="sampling step"):
        call()


def test_linear_quadratic_refuses_a_reference_coarser_than_itself():
    with pytest.raises(UsageError, match="at least 50 uniform steps"):
        schedules.linear_quadratic(reference=40)(50)


def test_a_schedule_is_drawn_together_or_refused():
    np.testing.assert_allclose(schedules.within(schedules.uniform()(4), 0.2, 1.0), [0.2, 0.4, 0.6, 0.8, 1.0])
    with pytest.raises(UsageError, match="not from 0.5 to 0.5"):
        schedules.within(schedules.uniform()(4), 0.5, 0.5)


def test_sampling_a_gaussian_with_its_closed_form_velocity_gives_its_mean_and_deviation():
    mean, deviation = 2.0, 0.5

    def velocity(x, t):
        # x_t = t x1 + (1 - t) x0 is Gaussian; E[x1 - x0 | x_t] by the linear regression of a Gaussian pair.
        variance = (t * deviation) ** 2 + (1 - t) ** 2
        covariance = t * deviation**2 - (1 - t)
        return mean + covariance / variance * (x - t * mean)

    x0 = jax.random.normal(jax.random.key(0), (20_000, 1))
    x1 = solvers.euler()(velocity, x0, schedules.uniform()(200))
    assert float(x1.mean()) == pytest.approx(mean, abs=0.02)
    assert float(x1.std()) == pytest.approx(deviation, abs=0.02)


@pytest.mark.parametrize("path", [paths.linear(0.0), paths.cosine(), paths.variance_preserving()])
@pytest.mark.parametrize("target", [targets.velocity, targets.noise, targets.data, targets.rotation, targets.edm])
def test_the_loss_is_least_for_what_the_target_asks(path, target):
    target = target()
    keys, x1 = jax.random.split(jax.random.key(0), 512), jnp.full((512, 1), 3.0)

    def exact(seen, t):  # one datum: the noise is known, and nothing is left to chance
        t = t[:, None]
        x = seen / target.input_scale(path, t)
        x0 = (x - path.alpha(t) * 3.0) / path.sigma(t)
        a, b = target.coefficients(path, t)
        return a * 3.0 + b * x0

    density = times.logit_normal(0.0, 0.5)
    loss, _ = objectives.regression(exact, keys, x1, recipe(path=path, target=target, times=density))
    assert float(loss.mean()) < 1e-4
    none, _ = objectives.regression(lambda x, t: 0.0 * x, keys, x1, recipe(path=path, target=target, times=density))
    assert float(none.mean()) > 0.1


def test_the_loss_of_saying_nothing_is_the_mean_square_of_the_velocity():
    keys, x1 = jax.random.split(jax.random.key(0), 4096), jnp.full((4096, 1), 3.0)
    loss, _ = objectives.regression(lambda x, t: jnp.zeros_like(x), keys, x1, recipe())
    assert float(loss.mean()) == pytest.approx(10.0, rel=0.05)  # E (3 - x0)^2


def test_a_row_of_the_objective_does_not_depend_on_the_other_rows():
    keys = jax.random.split(jax.random.key(1), 4)
    x1 = jax.random.normal(jax.random.key(2), (4, 2, 3))
    options = recipe(path=paths.linear(), times=times.logit_normal())
    whole, t = objectives.regression(lambda x, t: 0.5 * x, keys, x1, options)
    part, t_part = objectives.regression(lambda x, t: 0.5 * x, keys[2:], x1[2:], options)
    np.testing.assert_array_equal(whole[2:], part)
    np.testing.assert_array_equal(t[2:], t_part)
    assert len(np.unique(np.asarray(t))) == 4


def test_frames_with_times_of_their_own_have_losses_of_their_own():
    keys, x1 = jax.random.split(jax.random.key(1), 2), jnp.zeros((2, 4, 3))
    seen = []

    def network(x, t):
        seen.append(t.shape)
        return jnp.zeros_like(x)

    own = recipe(per_frame=True)
    loss, t = objectives.regression(network, keys, x1, own, frames=2)  # a patch is two frames of latents
    assert seen == [(2, 2)] and loss.shape == t.shape == (2, 2) and len(np.unique(np.asarray(t))) == 4
    buckets = objectives.loss_by_time(loss, t)
    assert buckets.shape == (10,)


def test_loss_by_time_averages_within_buckets():
    loss = objectives.loss_by_time(jnp.array([1.0, 3.0, 5.0]), jnp.array([0.01, 0.05, 0.999]))
    assert float(loss[0]) == 2.0 and float(loss[9]) == 5.0
    assert np.isnan(np.asarray(loss[1:9])).all()


def test_optimal_transport_deals_each_noise_once_and_shortens_the_way():
    x1, x0 = jax.random.normal(jax.random.key(0), (2, 16, 2))
    dealt = jax.jit(couplings.optimal_transport())(x1, x0)
    assert sorted(map(tuple, np.asarray(dealt).tolist())) == sorted(map(tuple, np.asarray(x0).tolist()))
    way = lambda x0: float(jnp.square(x1 - x0).sum())  # noqa: E731
    assert way(dealt) < 0.5 * way(x0)
    for a in range(16):  # no exchange of two is shorter
        for b in range(a):
            swapped = dealt.at[jnp.array([a, b])].set(dealt[jnp.array([b, a])])
            assert way(swapped) >= way(dealt) - 1e-4
    np.testing.assert_array_equal(couplings.independent()(x1, x0), x0)


class Told:
    """A model that says what it is told, and notes how many rows it was asked for."""

    def __init__(self):
        self.rows = []

    def __call__(self, x, t, condition):
        self.rows.append(x.shape[0])
        return condition * jnp.ones_like(x)


X, T = jnp.zeros((3, 2)), jnp.zeros(())
TWO, ONE, SEVEN = (jnp.full((3, 1), value) for value in (2.0, 1.0, 7.0))


def test_guidance_extrapolates_from_the_null_condition():
    model = Told()
    guided = guidance.classifier_free(model, TWO, ONE, 4.0)
    np.testing.assert_allclose(guided(X, T), 1.0 + 4.0 * (2.0 - 1.0))
    assert model.rows == [6]  # one call on the doubled batch
    np.testing.assert_allclose(guidance.classifier_free(model, TWO, ONE, 1.0)(X, T), 2.0)
    assert model.rows == [6, 3]


def test_two_conditions_have_scales_of_their_own():
    model = Told()
    guided = guidance.two_conditions(model, SEVEN, TWO, ONE, first_scale=3.0, second_scale=2.0)
    np.testing.assert_allclose(guided(X, T), 1.0 + 2.0 * (2.0 - 1.0) + 3.0 * (7.0 - 2.0))
    assert model.rows == [9]


def test_guidance_within_an_interval_is_none_outside():
    guided = jax.jit(guidance.classifier_free(Told(), TWO, ONE, guidance.interval(4.0, 0.2, 0.6)))
    found = [float(guided(X, jnp.float32(t))[0, 0]) for t in (0.1, 0.3, 0.5, 0.7)]
    assert found == [2.0, 5.0, 5.0, 2.0]


def test_guidance_oscillates_from_a_step_on():
    t = schedules.uniform()(6)
    guided = guidance.classifier_free(Told(), TWO, ONE, guidance.oscillating(4.0, t, other=1.0, first=2))
    found = [float(guided(X, jnp.float32(now))[0, 0]) for now in t[:-1]]
    assert found == [5.0, 5.0, 5.0, 2.0, 5.0, 2.0]
    within = [float(guided(X, jnp.float32(now))[0, 0]) for now in 0.5 * (t[:-1] + t[1:])]
    summed = [float(guided(X, jnp.float32(now - 1e-6))[0, 0]) for now in t[1:-1]]
    assert within == found and summed == found[1:]


def test_rescaled_guidance_has_the_deviation_of_the_condition():
    condition, null = jax.random.normal(jax.random.key(0), (2, 3, 50))
    model = lambda x, t, condition: condition  # noqa: E731
    x = jnp.zeros((3, 50))
    fields = [guidance.classifier_free(model, condition, null, 5.0, rescale=share) for share in (0.0, 0.5, 1.0)]
    plain, half, whole = (field(x, T).std(axis=1) for field in fields)
    np.testing.assert_allclose(whole, condition.std(axis=1), rtol=1e-5)
    np.testing.assert_allclose(half, 0.5 * (plain + whole), rtol=1e-5)
    assert (plain > 2 * whole).all()
    still = guidance.classifier_free(Told(), TWO, ONE, 4.0, rescale=0.5)  # the same everywhere: nothing has grown
    np.testing.assert_array_equal(still(X, T), 5.0)
