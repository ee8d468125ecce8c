"""The Frechet distance, and the network whose features it compares for videos."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import linalg

from tests.autoencoders import published
from vidflow.errors import UsageError
from vidflow.metrics import frechet, i3d


@pytest.mark.parametrize(("rows", "other_rows"), [(40, 50), (5, 7), (5, 50)])
def test_distance_is_that_of_the_matrix_square_root(rows, other_rows):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((rows, 8)) * np.arange(1, 9), rng.standard_normal((other_rows, 8)) + 0.3
    A, B = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(A + B - 2 * linalg.sqrtm(A @ B).real)
    assert frechet.distance(a, b) == pytest.approx(expected, rel=1e-5)


def test_distance_of_gaussians_is_the_closed_form():
    """Of N(0, 1) and N(m, s^2) in each of 3 dimensions: m^2 + (1 - s)^2, three times."""
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2_000, 3)), 0.5 + 2 * rng.standard_normal((2_000, 3))
    assert frechet.distance(a, b) == pytest.approx(3 * (0.25 + 1), rel=0.1)
    assert frechet.distance(a, a) == pytest.approx(0, abs=1e-9)


def test_no_distance_is_negative():
    """A table would show it as -0.000."""
    rng = np.random.default_rng(0)
    assert all(frechet.distance(a, a) >= 0 for a in 50 * rng.standard_normal((10, 20, 400)))


def test_one_clip_has_no_covariance():
    with pytest.raises(UsageError, match="2 clips or more of each kind, not 1 and 3"):
        frechet.distance(np.zeros((1, 4)), np.zeros((3, 4)))


def test_logits_are_those_of_pytorch_i3d(tmp_path):
    save_file(published.tensors("i3d"), tmp_path / "i3d.safetensors")
    network = i3d.load(tmp_path / "i3d.safetensors")
    logits = jax.jit(i3d.I3D._logits)(network, jnp.asarray(published.films()))
    np.testing.assert_allclose(logits, published.golden("i3d")["logits"], rtol=1e-4, atol=1e-4)


def test_other_weights_are_refused(tmp_path):
    save_file({"logits.conv3d.weight": np.zeros((4, 2, 1, 1, 1), np.float32)}, tmp_path / "i3d.safetensors")
    with pytest.raises(UsageError, match=r"does not hold the weights of I3D \('logits.conv3d.bias' is missing"):
        i3d.load(tmp_path / "i3d.safetensors")


def test_weights_for_optical_flow_are_refused(tmp_path):
    """pytorch-i3d's flow_imagenet.pt lies beside rgb_imagenet.pt and has the same names."""
    first, tensors = "Conv3d_1a_7x7.conv3d.weight", published.tensors("i3d")
    save_file(tensors | {first: np.ascontiguousarray(tensors[first][:, :2])}, tmp_path / "flow.safetensors")
    with pytest.raises(UsageError, match="of I3D for colours: save rgb_imagenet.pt"):
        i3d.load(tmp_path / "flow.safetensors")
