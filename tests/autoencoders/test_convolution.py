"""Convolutions by other ways than XLA's own are convolutions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from vidflow.autoencoders.convolution import convolve
from vidflow.autoencoders.winograd import FEWEST

ZEROS = [(0, 0), (1, 1), (1, 1)]


def pair(taps=(3, 3, 3), features=(FEWEST, FEWEST + 4), **settings):
    """The same layer twice, by its own products and by XLA's convolution, and its parameters."""
    layers = [nn.Conv(features[1], taps, conv_general_dilated=way, **settings) for way in (convolve, None)]
    params = layers[0].init(jax.random.key(0), jnp.zeros((1, 3, 3, 3, features[0])))
    return [jax.jit(layer.apply) for layer in layers], params


def farthest(a, b):
    return float(jnp.abs(a - b).max() / b.std())


@pytest.mark.parametrize(
    ("size", "taps", "padding"),
    [
        ((1, 1, 1), (3, 3, 3), ZEROS),
        ((3, 2, 7), (3, 3, 3), [(2, 0), (0, 2), (2, 1)]),
        ((2, 3, 8), (1, 3, 3), "SAME"),
    ],
)
def test_results_and_gradients_are_those_of_a_convolution(size, taps, padding):
    (ours, native), params = pair(taps, padding=padding)
    x = jax.random.normal(jax.random.key(1), (2, *(n + t - 1 for n, t in zip(size, taps, strict=True)), FEWEST))
    expected = native(params, x)
    assert farthest(ours(params, x), expected) < 5e-5
    weights = jax.random.normal(jax.random.key(2), expected.shape)
    gradients = [
        jax.grad(lambda p, x, f=f: (f(p, x) * weights).sum(), argnums=(0, 1))(params, x) for f in (ours, native)
    ]
    for found, true in zip(*map(jax.tree.leaves, gradients), strict=True):
        assert farthest(found, true) < 5e-5


@pytest.mark.parametrize("features", [(3, 5), (FEWEST, FEWEST), (FEWEST, 3)])
@pytest.mark.parametrize(
    ("taps", "strides", "padding"),
    [
        ((3, 3, 3), 1, [(2, 0), (0, 2), (2, 1)]),
        ((3, 3, 3), (1, 2, 2), ZEROS),
        ((3, 3, 3), (2, 1, 1), "SAME"),
        ((1, 3, 3), (1, 2, 2), "VALID"),
        ((2, 1, 3), 1, ZEROS),
    ],
)
def test_strides_and_small_features_are_convolutions_too(features, taps, strides, padding):
    (ours, native), params = pair(taps, features, strides=strides, padding=padding)
    x = jax.random.normal(jax.random.key(1), (2, 5, 8, 9, features[0]))
    assert farthest(ours(params, x), native(params, x)) < 5e-5
    gradients = [
        jax.grad(lambda p, x, f=f: jnp.square(f(p, x)).sum(), argnums=(0, 1))(params, x) for f in (ours, native)
    ]
    for found, true in zip(*map(jax.tree.leaves, gradients), strict=True):
        assert farthest(found, true) < 5e-5


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [({"kernel_dilation": 2}, jnp.float32), ({"strides": (1, 2, 2)}, jnp.float32), ({}, jnp.bfloat16)],
)
def test_what_does_not_gain_by_it_is_left_alone(settings, dtype):
    """Dilated, strided with many features, or of numbers too short for Winograd's sums."""
    (ours, native), params = pair(padding="SAME", dtype=dtype, **settings)
    x = jax.random.normal(jax.random.key(1), (1, 5, 6, 8, FEWEST), dtype)
    assert jnp.array_equal(ours(params, x), native(params, x))


@pytest.mark.parametrize("results", [FEWEST, 3])
def test_only_a_cpu_goes_this_way(results):
    (ours, _), params = pair(features=(FEWEST, results), padding="SAME")
    traced = ours.trace(params, jnp.zeros((1, 4, 4, 4, FEWEST)))
    texts = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "tpu", "cuda")}
    assert {name: "stablehlo.convolution" in text for name, text in texts.items()} == {
        "cpu": False,
        "tpu": True,
        "cuda": True,
    }
    assert "dot_general" in texts["cpu"] and "dot_general" not in texts["tpu"]
