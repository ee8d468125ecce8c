"""Each loss against its definition, by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.autoencoders import discriminator, losses
from vidflow.autoencoders.latents import Posterior

KEY = jax.random.key(0)


def test_outliers_are_what_lies_beyond_the_deviations_of_a_frame():
    z = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    z[0, 1, 2, 3] += 40.0
    wanted = np.zeros(2)
    for row in range(2):
        for frame in z[row]:
            mean, std = frame.mean(axis=(0, 1)), frame.std(axis=(0, 1))
            for site in frame.reshape(-1, 6):
                excess = np.linalg.norm(site - mean) - 3 * np.linalg.norm(std)
                wanted[row] += max(excess, 0) / 20 / 3
    assert wanted[0] > 0 and wanted[1] == 0
    np.testing.assert_allclose(losses.outliers(jnp.asarray(z)), wanted, rtol=1e-4)
    assert losses.outliers(jnp.asarray(z, jnp.bfloat16)).dtype == jnp.float32


def test_outliers_pull_the_site_that_sticks_out_and_are_finite_on_flat_latents():
    z = jnp.zeros((1, 1, 6, 6, 4)).at[0, 0, 2, 2].set(9.0)
    gradient = jax.grad(lambda z: losses.outliers(z).sum())(z)
    assert (gradient[0, 0, 2, 2] > 0).all()
    flat = jax.grad(lambda z: losses.outliers(z).sum())(jnp.ones((1, 1, 6, 6, 4)))
    assert np.isfinite(flat).all() and np.isfinite(losses.outliers(jnp.ones((1, 1, 6, 6, 4)))).all()


def test_consistency_is_the_divergence_of_the_second_posterior_from_the_first():
    draws = [0.5 * jax.random.normal(key, (2, 1, 2, 2, 3)) for key in jax.random.split(KEY, 4)]
    first, again = Posterior(*draws[:2]), Posterior(*draws[2:])
    noise = jax.random.normal(KEY, (20_000, *again.mean.shape))
    z = again.mean + jnp.exp(0.5 * again.logvar) * noise

    def log_density(posterior):
        return -0.5 * (jnp.square(z - posterior.mean) * jnp.exp(-posterior.logvar) + posterior.logvar)

    wanted = (log_density(again) - log_density(first)).mean(axis=(0, 2, 3, 4, 5))
    np.testing.assert_allclose(losses.consistency(first, again), wanted, atol=0.02)
    np.testing.assert_allclose(losses.consistency(first, first), 0.0, atol=1e-6)
    still = jax.grad(lambda first: losses.consistency(first, again).sum())(first)
    assert not still.mean.any() and not still.logvar.any()


def test_wavelet_keeps_the_energy_of_pixels_and_sees_a_flicker():
    video = jax.random.uniform(KEY, (2, 4, 6, 8, 3), minval=-1)
    bands = losses._haar(video)
    assert bands.shape == (2, 8, 2, 3, 4, 3)
    np.testing.assert_allclose(jnp.square(bands).sum(), jnp.square(video).sum(), rtol=1e-5)
    flat = jnp.full((1, 4, 4, 4, 3), 0.5)
    flicker = flat.at[:, ::2].add(0.2).at[:, 1::2].add(-0.2)
    # Only the band of differences along time differs, by 0.4 / 2 * 8 pixels / sqrt(8): a band of eight.
    np.testing.assert_allclose(losses.wavelet(flicker, flat), 0.2 * 8 / 8**0.5 / 8, rtol=1e-5)
    assert losses.wavelet(flat[:, :3], flat[:, :3]) == 0.0  # an odd number of frames


@pytest.fixture(scope="module", params=[1, 3], ids=["2d", "3d"])
def critic(request):
    module = discriminator.PatchDiscriminator(width=8, layers=2, time=request.param)
    params = nn.unbox(module.init(KEY, jnp.zeros((1, 4, 16, 16, 3))))
    return module, params


def test_a_discriminator_of_frames_does_not_see_other_frames(critic):
    module, params = critic
    video = jax.random.uniform(KEY, (1, 5, 16, 16, 3))
    score = module.apply(params, video)
    changed = module.apply(params, video.at[:, 4].set(0.0))
    if module.time == 1:
        assert score.shape == (1, 5, 4, 4)
        np.testing.assert_array_equal(score[:, :4], changed[:, :4])
    else:
        assert score.shape == (1, 2, 4, 4)
        assert (score[:, 0] != changed[:, 0]).any()


def test_hinge_and_deceive_by_hand():
    real, fake = jnp.array([[[[2.0, 0.5]]]]), jnp.array([[[[-3.0, 1.0]]]])
    assert discriminator.hinge(real, fake) == 0.5 * (0.25 + 1.0)
    assert discriminator.deceive(fake) == 1.0


def test_r1_is_the_squared_gradient(critic):
    module, params = critic
    video = jax.random.uniform(KEY, (2, 4, 8, 8, 3))

    def score(video):
        return module.apply(params, video)

    wanted = [np.square(jax.grad(lambda one: score(one[None]).mean())(row)).sum() for row in video]
    np.testing.assert_allclose(discriminator.r1(score, video), wanted, rtol=1e-4)
    np.testing.assert_allclose(discriminator.r1(lambda x: 3.0 * x[..., 0], video), 9.0 / 256, rtol=1e-5)


def test_the_adaptive_weight_is_the_ratio_of_the_gradients_by_the_last_kernel():
    hidden, kernel = jax.random.normal(KEY, (1, 2, 4, 4, 6)), jax.random.normal(jax.random.key(1), (6, 3))
    target = jax.random.normal(jax.random.key(2), (1, 2, 4, 4, 3))

    def reconstruct(video):
        return jnp.square(video - target).mean()

    def fool(video):
        return -jnp.tanh(video).mean()

    got = discriminator.adaptive_weight(lambda kernel: hidden @ kernel, kernel, reconstruct, fool)
    norms = [jnp.linalg.norm(jax.grad(lambda k, loss=loss: loss(hidden @ k))(kernel)) for loss in (reconstruct, fool)]
    np.testing.assert_allclose(got, norms[0] / norms[1], rtol=1e-2)  # less the small number that guards the division
