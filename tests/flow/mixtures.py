"""Mixtures of Gaussians, whose flows along every Gaussian path are known in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vidflow.flow import targets


class Mixture(NamedTuple):
    """Equally likely Gaussians with means [M, D] and one deviation each [M]."""

    means: jax.Array
    deviations: jax.Array

    def log_density(self, path, x, t):
        """Of x [B, D] at time t."""
        return jax.scipy.special.logsumexp(self._each(path, x, t), axis=1) - jnp.log(len(self.means))

    def score(self, path, x, t):
        return jax.grad(lambda x: self.log_density(path, x, t).sum())(x)

    def data(self, path, x, t):
        """E[x1 | x_t = x], by Bayes' rule over the Gaussians and by regression within each."""
        share = jax.nn.softmax(self._each(path, x, t), axis=1)
        alpha, variance = path.alpha(t), self._variance(path, t)
        gain = alpha * self.deviations**2 / variance
        each = self.means + gain[:, None] * (x[:, None] - alpha * self.means)
        return (share[:, :, None] * each).sum(axis=1)

    def velocity(self, path, x, t):
        return targets.convert(targets.data(), targets.velocity(), path, self.data(path, x, t), x, t)

    def _variance(self, path, t):
        return (path.alpha(t) * self.deviations) ** 2 + path.sigma(t) ** 2

    def _each(self, path, x, t):
        variance = self._variance(path, t)
        apart = jnp.square(x[:, None] - path.alpha(t) * self.means).sum(axis=2)
        return -0.5 * apart / variance - 0.5 * x.shape[1] * jnp.log(2 * jnp.pi * variance)


def mixture(dimensions, components=3, seed=0):
    means = jax.random.normal(jax.random.key(seed), (components, dimensions))
    return Mixture(means, 0.3 + 0.2 * jnp.arange(components))
