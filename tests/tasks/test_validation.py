"""The validation loss that all paths and targets share."""

import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.flow import paths
from vidflow.tasks import validation

PATHS = [paths.linear(0.0), paths.cosine(), paths.variance_preserving(), paths.polynomial(3.0)]


@pytest.mark.parametrize("path", PATHS)
def test_a_time_has_its_signal_to_noise_ratio(path):
    for ratio in (-2.9, 0.0, 2.9):
        found = paths.log_snr(path, jnp.asarray(validation.time_of(path, ratio)))
        assert float(found) == pytest.approx(ratio, abs=1e-3)


def test_on_the_straight_path_times_are_the_levels():
    found = [validation.time_of(paths.linear(0.0), np.log(t / (1 - t))) for t in validation.LEVELS]
    np.testing.assert_allclose(found, validation.LEVELS, atol=1e-9)
