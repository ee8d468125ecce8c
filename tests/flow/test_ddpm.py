"""Diffusion in discrete steps with a learned variance, against Bayes' rule and a datum that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.errors import UsageError
from vidflow.flow import ddpm

DIFFUSION = ddpm.linear()
DATUM = 0.7


def exact(x, t):
    """What is true where every datum is DATUM: its noise, and the variance of the posterior."""
    kept = jnp.interp(t, DIFFUSION.time[::-1], DIFFUSION.alpha_bar[::-1])[:, None]
    return (x - jnp.sqrt(kept) * DATUM) / jnp.sqrt(1 - kept), -jnp.ones_like(x)


def test_the_posterior_is_that_of_bayes():
    level, x1, x = jnp.array([5, 400, 999]), jnp.full((3, 1), DATUM), jnp.array([[0.2], [-1.0], [0.5]])
    before, beta = DIFFUSION.before[level], DIFFUSION.beta[level]
    # Precisions of x_{k-1} add up: from the datum, and from x_k = sqrt(1 - beta) x_{k-1} + noise of variance beta.
    precision = 1 / (1 - before) + (1 - beta) / beta
    mean = (np.sqrt(before) * DATUM / (1 - before) + np.sqrt(1 - beta) * x[:, 0] / beta) / precision
    np.testing.assert_allclose(ddpm.posterior_mean(DIFFUSION, x1, x, level)[:, 0], mean, rtol=1e-4)
    low, high = (bound[level] for bound in DIFFUSION.log_variance_bounds)
    np.testing.assert_allclose(low, -np.log(precision), rtol=1e-6)
    ends = [ddpm.log_variance(DIFFUSION, jnp.full((3, 1), share), level)[:, 0] for share in (-1.0, 1.0)]
    np.testing.assert_allclose(ends, [low, high], rtol=1e-5)


def test_the_lowest_levels_lose_no_digits():
    """Weights of the posterior's mean add up as in float64, though 1 - alpha_bar is 1e-4."""
    level, x1, x = jnp.arange(3), jnp.full((3, 1), DATUM), jnp.full((3, 1), 0.3)
    before, beta, kept = (table[:3] for table in (DIFFUSION.before, DIFFUSION.beta, DIFFUSION.alpha_bar))
    mean = (np.sqrt(before) * beta * DATUM + np.sqrt(1 - beta) * (1 - before) * 0.3) / (1 - kept)
    np.testing.assert_allclose(ddpm.posterior_mean(DIFFUSION, x1, x, level)[:, 0], mean, rtol=1e-6)


def test_a_network_that_knows_the_datum_has_no_loss_but_at_the_first_level():
    keys = jax.random.split(jax.random.key(0), 512)
    loss, t = ddpm.loss(exact, keys, jnp.full((512, 1), DATUM), DIFFUSION)
    assert np.abs(np.asarray(loss[t < 1.0])).max() < 1e-3
    wide, _ = ddpm.loss(lambda x, t: (exact(x, t)[0], jnp.ones_like(x)), keys, jnp.full((512, 1), DATUM), DIFFUSION)
    early = (t < 1.0) & (t > 0.9)  # where the bounds of the variance differ
    assert (wide[early] > loss[early]).all()  # a variance too large costs bits


def test_the_variance_learns_and_the_mean_does_not_learn_from_the_bound():
    keys, x1 = jax.random.split(jax.random.key(0), 64), jnp.full((64, 1), DATUM)

    def loss(shift, share):
        network = lambda x, t: (exact(x, t)[0] + shift, jnp.full_like(x, share))  # noqa: E731
        return ddpm.loss(network, keys, x1, DIFFUSION)[0].mean()

    by_mean, by_variance = jax.grad(loss, argnums=(0, 1))(0.3, 0.0)
    assert float(by_mean) == pytest.approx(2 * 0.3, rel=1e-4)  # of the squared error alone
    assert float(by_variance) != 0.0


@pytest.mark.parametrize("steps", [1000, 50])
def test_samples_end_at_the_datum(steps):
    x0 = jax.random.normal(jax.random.key(0), (4, 1))
    diffusion = ddpm.respaced(DIFFUSION, steps)
    keys = jax.random.split(jax.random.key(1), 4)
    x = jax.jit(lambda x0: ddpm.sample(exact, x0, diffusion, keys))(x0)
    np.testing.assert_allclose(x, DATUM, atol=0.03)  # the first level keeps a hundredth of noise
    part = jax.jit(lambda x0: ddpm.sample(exact, x0, diffusion, keys[:2]))(x0[:2])
    np.testing.assert_array_equal(part, x[:2])


@pytest.mark.parametrize("steps", [1, 1001])
def test_steps_that_the_levels_do_not_give_are_refused(steps):
    with pytest.raises(UsageError, match=f"2 to 1000 steps, not {steps}"):
        ddpm.respaced(DIFFUSION, steps)
