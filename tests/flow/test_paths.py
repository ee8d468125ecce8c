"""Paths, targets and their conversions against closed forms, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.errors import UsageError
from vidflow.flow import paths, targets

PATHS = {
    "linear": paths.linear(0.0),
    "with_noise_left": paths.linear(0.1),
    "cosine": paths.cosine(),
    "polynomial": paths.polynomial(1.5),
    "vp": paths.variance_preserving(),
    "zero_snr": paths.variance_preserving(zero_terminal_snr=True),
}
TARGETS = {
    "velocity": targets.velocity(),
    "noise": targets.noise(),
    "data": targets.data(),
    "score": targets.score(),
    "rotation": targets.rotation(),
    "edm": targets.edm(0.5),
}
INSIDE = np.linspace(0.02, 0.98, 25)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def pair():
    return jax.random.normal(jax.random.key(0), (2, len(INSIDE), 3), jnp.float64)


@pytest.mark.parametrize("name", PATHS)
def test_velocity_is_the_time_derivative_of_the_path(name):
    path, t, (x1, x0) = PATHS[name], jnp.asarray(INSIDE), pair()
    _, derivative = jax.jvp(lambda t: paths.interpolate(path, x1, x0, t), (t,), (jnp.ones_like(t),))
    np.testing.assert_allclose(targets.value(targets.velocity(), path, x1, x0, t), derivative, rtol=1e-9, atol=1e-9)


def test_the_linear_path_is_noise_at_0_and_data_at_1_up_to_s_min():
    x1, x0 = jnp.full((2, 3), 5.0), jnp.full((2, 3), -1.0)
    path = paths.linear(s_min=0.01)
    np.testing.assert_array_equal(paths.interpolate(path, x1, x0, jnp.zeros(2)), x0)
    np.testing.assert_allclose(paths.interpolate(path, x1, x0, jnp.ones(2)), 5.0 - 0.01, rtol=1e-6)


def test_only_without_terminal_snr_does_the_diffusion_path_end_in_pure_noise():
    start = jnp.zeros(())
    assert float(PATHS["vp"].alpha(start)) == pytest.approx(np.exp(-0.25 * 19.9 - 0.05))
    assert float(PATHS["zero_snr"].alpha(start)) == 0.0
    for name in ("vp", "zero_snr", "cosine"):
        path, t = PATHS[name], jnp.asarray(INSIDE)
        np.testing.assert_allclose(path.alpha(t) ** 2 + path.sigma(t) ** 2, 1.0, rtol=1e-12)
        assert float(path.alpha(jnp.ones(()))) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["vp", "zero_snr", "cosine"])
def test_the_noise_near_the_data_is_told_in_single_precision(name):
    """Up to the last time that `times.draw` draws."""
    path = PATHS[name]
    t = np.float32(1) - np.float32([1e-2, 1e-4, 1e-6, 1e-7])
    exact = [np.asarray(f(jnp.asarray(t, jnp.float64))) for f in path]
    with jax.enable_x64(False):
        for f, values in zip(path, exact, strict=True):
            np.testing.assert_allclose(f(jnp.asarray(t)), values, rtol=2e-6)
        assert float(paths.log_snr(path, jnp.ones(()))) == np.inf


@pytest.mark.parametrize("name", PATHS)
def test_the_signal_grows_along_every_path(name):
    assert (np.diff(paths.log_snr(PATHS[name], jnp.asarray(INSIDE))) > 0).all()


def test_time_the_other_way_swaps_the_ends_and_back_again():
    path, t = PATHS["vp"], jnp.asarray(INSIDE)
    other = paths.reverse(path)
    for one, turned in zip(path, other, strict=True):
        np.testing.assert_allclose(jnp.abs(turned(t)), jnp.abs(one(1 - t)))
    x1, x0 = pair()
    # dx/ds = -dx/dt: SD3's velocity is noise less data where ours is data less noise.
    linear = paths.reverse(paths.linear(0.0))
    np.testing.assert_allclose(targets.value(targets.velocity(), linear, x1, x0, t), x0 - x1)
    for one, twice in zip(path, paths.reverse(other), strict=True):
        np.testing.assert_allclose(twice(t), one(t), rtol=1e-12)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("source", TARGETS)
def test_every_target_becomes_every_other(path, source):
    path, source, t, (x1, x0) = PATHS[path], TARGETS[source], jnp.asarray(INSIDE), pair()
    x, said = paths.interpolate(path, x1, x0, t), targets.value(source, path, x1, x0, t)
    at = paths.align(t, x)
    for wanted in TARGETS.values():
        expected = targets.value(wanted, path, x1, x0, t)
        np.testing.assert_allclose(targets.convert(source, wanted, path, said, x, at), expected, rtol=1e-8, atol=1e-8)


def test_a_target_converts_to_itself_without_rounding():
    with jax.enable_x64(False):
        path, t = paths.linear(), jnp.linspace(0, 1, 7, dtype=jnp.float32)
        said, x = jax.random.normal(jax.random.key(0), (2, 7), jnp.float32)
        velocity = targets.velocity()
        np.testing.assert_array_equal(targets.convert(velocity, velocity, path, said, x, t), said)


def test_rotation_is_the_velocity_of_the_cosine_path_per_radian():
    t, (x1, x0) = jnp.asarray(INSIDE), pair()
    velocity, rotation = (targets.value(f(), PATHS["cosine"], x1, x0, t) for f in (targets.velocity, targets.rotation))
    np.testing.assert_allclose(velocity, 0.5 * np.pi * rotation, rtol=1e-12)


def test_edm_is_the_preconditioning_of_its_paper():
    deviation, path, t, (x1, x0) = 0.5, PATHS["linear"], jnp.asarray(INSIDE)[:, None], pair()
    s = (1 - t) / t  # the noise level of Karras et al., at which their state is x_t / alpha
    state = x1 + s * x0
    skip = deviation**2 / (s**2 + deviation**2)
    out, scale = s * deviation / jnp.sqrt(s**2 + deviation**2), 1 / jnp.sqrt(s**2 + deviation**2)
    said = targets.value(targets.edm(deviation), path, x1, x0, t[:, 0])
    np.testing.assert_allclose(skip * state + out * said, x1, atol=1e-12)
    seen = targets.edm(deviation).input_scale(path, t) * paths.interpolate(path, x1, x0, t[:, 0])
    np.testing.assert_allclose(seen, scale * state, rtol=1e-12)


def test_edm_of_unit_data_on_a_path_of_constant_variance_is_the_rotation():
    t, (x1, x0) = jnp.asarray(INSIDE), pair()
    one, other = (targets.value(target, PATHS["vp"], x1, x0, t) for target in (targets.edm(1.0), targets.rotation()))
    np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize(
    ("target", "path", "t", "why"),
    [
        ("noise", "linear", 0.0, "'noise' .* t = 0, the end of noise: there the state has no trace of the datum"),
        ("score", "zero_snr", 0.0, "alpha = 0.* config.sampling.start"),
        ("data", "linear", 1.0, "'data' .* t = 1, the end of data: there the state has no noise.*config.sampling.end"),
        ("velocity", "vp", 1.0, "t = 1"),
    ],
)
def test_a_target_that_says_nothing_at_an_end_is_refused_there(target, path, t, why):
    with pytest.raises(UsageError, match=why):
        targets.check(TARGETS[target], PATHS[path], np.array([t]))
    targets.check(TARGETS[target], PATHS[path], INSIDE)


@pytest.mark.parametrize("target", ["velocity", "data", "edm", "rotation"])
def test_others_can_be_asked_where_all_is_noise(target):
    targets.check(TARGETS[target], PATHS["linear"], np.array([0.0, 0.5]))


def test_a_time_per_frame_broadcasts_over_frames_only():
    x1, x0 = jnp.ones((2, 3, 4, 4, 1)), jnp.zeros((2, 3, 4, 4, 1))
    t = jnp.arange(6.0).reshape(2, 3) / 6
    x = paths.interpolate(paths.linear(), x1, x0, t)
    np.testing.assert_allclose(x[:, :, 0, 0, 0], t, rtol=1e-6)
    assert x.shape == x1.shape
