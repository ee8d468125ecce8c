"""The validation loss that all paths and targets share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow import settings
from vidflow.flow import paths
from vidflow.flow.paths import align
from vidflow.models.dit import Output
from vidflow.tasks import flow_parts, text_to_video, validation
from vidflow.tasks.generation import Generator

PATHS = [paths.linear(0.0), paths.cosine(), paths.variance_preserving(), paths.polynomial(3.0)]


@pytest.mark.parametrize("path", PATHS)
def test_a_time_has_its_signal_to_noise_ratio(path):
    for ratio in (-2.9, 0.0, 2.9):
        found = paths.log_snr(path, jnp.asarray(validation.time_of(path, ratio)))
        assert float(found) == pytest.approx(ratio, abs=1e-3)


def test_on_the_straight_path_times_are_the_levels():
    found = [validation.time_of(paths.linear(0.0), np.log(t / (1 - t))) for t in validation.LEVELS]
    np.testing.assert_allclose(found, validation.LEVELS, atol=1e-9)


class Knowing:
    """A network that knows the datum and says the target of its input, off by its one parameter."""

    def __init__(self, config, datum):
        self.path, self.target = flow_parts.make_path(config.flow), flow_parts.make_target(config.flow)
        self.datum = datum

    def apply(self, off, seen, t=None, conditioning=None, method=""):
        if method == "encode_text":
            return None
        t = align(t, seen)
        x = seen / self.target.input_scale(self.path, t)
        noise = (x - self.path.alpha(t) * self.datum) / self.path.sigma(t)
        a, b = self.target.coefficients(self.path, t)
        return Output(a * self.datum + b * noise + off)


@pytest.mark.parametrize("path", ["linear", "cosine", "variance_preserving", "polynomial"])
@pytest.mark.parametrize("target", ["velocity", "noise", "data", "score", "rotation", "edm:sigma_data=0.7"])
def test_the_loss_is_of_the_straight_velocity_whatever_is_predicted(monkeypatch, path, target):
    config = settings.of_a_generator()
    config.flow.path, config.flow.target, config.seed = path, target, 3
    datum, generator = jax.random.normal(jax.random.key(1), (2, 4, 3, 3, 2)), Generator.__new__(Generator)
    generator.config = config

    monkeypatch.setattr(text_to_video, "make_model", lambda config: Knowing(config, datum))
    loss = jax.jit(validation._make_loss(generator))
    right, wrong = (loss(off, datum, None, np.arange(2)) for off in (0.0, 0.1))
    np.testing.assert_allclose(right, 0.0, atol=1e-7)
    assert (wrong > 1e-4).all()
    if (path, target) == ("linear", "velocity"):
        np.testing.assert_allclose(wrong, 0.01, rtol=1e-3)
