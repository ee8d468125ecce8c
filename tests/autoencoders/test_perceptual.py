"""LPIPS against the package lpips, with random weights of the published layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.autoencoders import published
from vidflow.autoencoders import perceptual
from vidflow.errors import UsageError


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_distance_and_gradient_are_those_of_the_package(net, tmp_path):
    save_file(published.tensors(f"lpips_{net}"), tmp_path / "lpips.safetensors")
    measure, golden = perceptual.load(tmp_path / "lpips.safetensors"), published.golden(f"lpips_{net}")
    assert measure.name == net
    one, other = (jnp.asarray(published.pictures(seed)) for seed in (0, 1))
    distance = jax.jit(type(measure).distance)
    np.testing.assert_allclose(distance(measure, one[:, None], other[:, None]), golden["distance"], rtol=1e-4)
    slope = jax.jit(jax.value_and_grad(lambda one, measure, other: measure.distance(one, other).sum()))
    gradient = slope(one[:, None], measure, other[:, None])[1][:, 0]
    # By its length: where an activation lies at a kink, rounding decides which side a few pixels are on.
    assert np.linalg.norm(gradient - golden["gradient"]) < 0.01 * np.linalg.norm(golden["gradient"])
    # Frames are averaged, and a video is at no distance from itself, where the gradient is finite.
    np.testing.assert_allclose(distance(measure, one[None], other[None]), [golden["distance"].mean()], rtol=1e-4)
    same, gradient = slope(one[:, None], measure, one[:, None])
    assert same < 1e-10 and np.isfinite(gradient).all()


def test_other_weights_are_refused(tmp_path):
    save_file({"net.slice1.0.weight": np.zeros((64, 3, 11, 11), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=r"does not hold the weights of LPIPS \('net.slice1.0.bias' is missing"):
        perceptual.load(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="no weights at"):
        perceptual.load(tmp_path / "b.safetensors")


def test_random_features_are_a_distance_under_a_name_of_their_own():
    measure = perceptual.random_features()
    one, other = (jnp.asarray(published.pictures(seed))[:, None] for seed in (0, 1))
    slope = jax.jit(jax.value_and_grad(lambda one, other: measure.distance(one, other).sum()))
    near, gradient = slope(one, one + 0.01 * other)
    assert 0 < near < slope(one, other)[0] and jnp.abs(gradient).max() > 0
    same, gradient = slope(one, one)
    assert same < 1e-10 and np.isfinite(gradient).all() and measure.name == "random"


@pytest.mark.parametrize("name", perceptual.NETWORKS)
def test_pictures_of_which_nothing_would_be_left_are_refused(name):
    """Their distance would be the mean of no features, which is not a number."""
    network, width, kernels = perceptual.NETWORKS[name], 3, []
    for stage in network.stages:
        shapes = [(size, size, width if place == 0 else 2, 2) for place, (_, size, _, _) in enumerate(stage)]
        kernels.append(tuple(jnp.ones(shape) for shape in shapes))
        width = 2
    ones = tuple(tuple(jnp.zeros(2) for _ in stage) for stage in kernels)
    measure = perceptual.Perceptual(tuple(kernels), ones, tuple(jnp.ones(2) for _ in kernels), name)
    smallest = jnp.zeros((1, 1, network.smallest, network.smallest, 3))
    features = jax.eval_shape(measure._features, smallest)
    assert min(features[-1].shape[1:3]) == 1
    with pytest.raises(UsageError, match=f"at least {network.smallest} x {network.smallest} pixels, not "):
        measure.distance(smallest[:, :, 1:], smallest[:, :, 1:])
