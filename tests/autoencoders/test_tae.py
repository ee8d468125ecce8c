"""The temporal autoencoder: shapes for any length, frames that know nothing of images, images that are one frame."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.modules import apply, init, randomised
from vidflow.autoencoders import losses
from vidflow.autoencoders.latents import Compression, Posterior, Statistics
from vidflow.autoencoders.layers import SpatialConv, TemporalConv, upsample
from vidflow.autoencoders.tae import TemporalAutoencoder
from vidflow.errors import UsageError

OPTIONS = {"widths": (8, 8, 12), "strides": ((2, 2), (2, 2)), "blocks": 1, "channels": 3, "groups": 4}


def build(**options):
    module = TemporalAutoencoder(**{**OPTIONS, **options})
    params = init(module, jnp.zeros((1, 1, 8, 8, 3)))
    return module, params


@functools.partial(jax.jit, static_argnums=0)
def encode(module, params, video):
    return module.apply(params, video, method="encode")


@functools.partial(jax.jit, static_argnums=(0, 3))
def decode(module, params, z, frames, hints=None):
    return module.apply(params, z, frames, hints, method="decode")


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 9])
def test_any_number_of_frames_encodes_rounded_up_and_decodes_back(frames):
    module, params = build()
    video = jnp.zeros((2, frames, 8, 16, 3))
    z = encode(module, params, video).mean
    assert z.shape == (2, *module.compression.latent_shape(frames, 8, 16)) == (2, -(-frames // 4), 2, 4, 3)
    assert decode(module, params, z, frames).shape == video.shape


def test_the_paper_compresses_8_by_8_by_8_to_16_channels():
    assert TemporalAutoencoder().compression == Compression(8, 8, 8, 16)
    assert TemporalAutoencoder().compression.latent_shape(256, 768, 768) == (32, 96, 96, 16)


def test_at_the_start_every_frame_goes_through_the_image_model_alone():
    """Temporal layers begin as the identity, so without temporal strides a video is a batch of images."""
    module, params = build(strides=((1, 2), (1, 2)))
    video = jax.random.normal(jax.random.key(1), (1, 3, 8, 8, 3))
    whole = encode(module, params, video).mean
    frames = encode(module, params, video[0][:, None]).mean
    np.testing.assert_allclose(whole[0], frames[:, 0], atol=1e-5)


def test_a_still_video_encodes_like_its_image_at_every_time():
    """Edge padding invents no change: also with random temporal weights and strides."""
    module, params = build()
    params = randomised(params, 0.2)
    image = jax.random.normal(jax.random.key(1), (1, 1, 8, 8, 3))
    still = jnp.repeat(image, 8, axis=1)
    one = encode(module, params, image).mean
    many = encode(module, params, still).mean
    np.testing.assert_allclose(many, jnp.repeat(one, 2, axis=1), atol=1e-5)


def test_it_is_not_causal_and_reaches_both_ways_in_time():
    module, params = build()
    params = randomised(params, 0.2)

    def middle(video):
        return encode(module, params, video).mean[0, 1].sum()

    gradient = jax.grad(middle)(jax.random.normal(jax.random.key(0), (1, 12, 8, 8, 3)))
    reach = np.abs(np.asarray(gradient)).sum((0, 2, 3, 4))
    assert reach[3] > 0 and reach[8] > 0


def test_temporal_convolution_is_a_convolution_with_edge_padding():
    x = jax.random.normal(jax.random.key(0), (1, 5, 1, 1, 2))
    layer = TemporalConv(3, stride=2)
    params = randomised(init(layer, x), 0.2)
    kernel, bias = params["params"]["kernel"], params["params"]["bias"]
    frames = np.asarray(x[0, :, 0, 0])
    padded = np.concatenate([frames[:1], frames, frames[-1:]])
    expected = [sum(padded[t + k] @ np.asarray(kernel[k]) for k in range(3)) + bias for t in (0, 2, 4)]
    np.testing.assert_allclose(apply(layer, params, x)[0, :, 0, 0], expected, atol=1e-5)


def test_spatial_stride_halves_exactly_and_upsampling_doubles():
    x = jnp.zeros((1, 2, 6, 8, 4))
    layer = SpatialConv(5, stride=2)
    assert apply(layer, init(layer, x), x).shape == (1, 2, 3, 4, 5)
    x = jnp.arange(2.0).reshape(1, 2, 1, 1, 1)
    np.testing.assert_array_equal(upsample(x, 2, 1)[0, :, 0, 0, 0], [0, 0, 1, 1])
    assert upsample(x, 1, 3).shape == (1, 2, 3, 3, 1)


def test_every_parameter_takes_part():
    module, params = build(patch=2)
    params = randomised(params, 0.2)
    video = jax.random.uniform(jax.random.key(1), (1, 5, 16, 16, 3), minval=-1)

    def loss(params):
        posterior = module.apply(params, video, method="encode")
        z = posterior.sample(jax.random.split(jax.random.key(2), 1))
        reconstruction = module.apply(params, z, 5, method="decode")
        terms = {"l1": losses.l1(reconstruction, video), "kl": posterior.kl()}
        return losses.total(terms, {"l1": 1.0, "kl": 0.1})[0]

    gradient = jax.jit(jax.grad(loss))(params)
    silent = [
        jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(gradient) if not leaf.any()
    ]
    # A softmax does not see a shift of all its logits, so biases of keys have no gradient.
    assert [name for name in silent if "key']['bias" not in name] == []


def test_sizes_that_the_stride_does_not_divide_are_refused_with_one_that_works():
    compression = Compression(8, 8, 8, 16)
    with pytest.raises(UsageError, match=r"height of 100 .* stride 8: use 96"):
        compression.latent_shape(16, 100, 96)
    with pytest.raises(UsageError, match="at least 1 frame"):
        compression.latent_shape(0, 96, 96)


def test_kl_of_a_standard_normal_is_zero_and_of_a_shifted_one_half_its_square():
    zeros = jnp.zeros((2, 1, 2, 2, 3))
    np.testing.assert_allclose(Posterior(zeros, zeros).kl(), 0.0)
    np.testing.assert_allclose(Posterior(zeros + 2.0, zeros).kl(), 2.0)
    shifted = Posterior(zeros, zeros + jnp.log(4.0))  # deviation 2: (4 - 1 - ln 4) / 2
    np.testing.assert_allclose(shifted.kl(), (3 - np.log(4)) / 2, rtol=1e-6)


def test_a_posterior_sample_has_its_mean_and_deviation_and_is_per_row():
    posterior = Posterior(jnp.full((2, 4, 8, 8, 3), 5.0), jnp.full((2, 4, 8, 8, 3), 2 * jnp.log(0.1)))
    keys = jax.random.split(jax.random.key(0), 2)
    z = posterior.sample(keys)
    assert float(z.mean()) == pytest.approx(5.0, abs=0.02) and float(z.std()) == pytest.approx(0.1, abs=0.01)
    second = Posterior(posterior.mean[1:], posterior.logvar[1:]).sample(keys[1:])
    np.testing.assert_array_equal(z[1:], second)


def test_normalisation_is_undone_by_its_inverse():
    statistics = Statistics((1.0, -2.0), (0.5, 4.0))
    z = jax.random.normal(jax.random.key(0), (1, 2, 2, 2, 2))
    np.testing.assert_allclose(statistics.denormalise(statistics.normalise(z)), z, atol=1e-6)
    np.testing.assert_allclose(statistics.normalise(jnp.array([1.5, 2.0]).reshape(1, 1, 1, 1, 2)).ravel(), [1.0, 1.0])


def test_hints_of_zeros_are_no_hints():
    """Clips that show no frame are trained with zeros, and decoded without hints afterwards."""
    module, params = build(hinted=True)
    params, video = randomised(params, 0.2), jnp.ones((1, 4, 8, 8, 3))
    z = encode(module, params, video).mean
    nothing = jax.tree.map(jnp.zeros_like, jax.jit(lambda x: module.apply(params, x, method="hints"))(video[:, :1]))
    np.testing.assert_array_equal(decode(module, params, z, 4, nothing), decode(module, params, z, 4))


def test_hints_of_the_first_frame_change_nothing_until_they_are_learnt():
    module, params = build(hinted=True)
    video = jax.random.uniform(jax.random.key(1), (2, 4, 8, 8, 3), minval=-1)
    z = encode(module, params, video).mean
    plain = decode(module, params, z, 4)
    hints = jax.jit(lambda image: module.apply(params, image, method="hints"))(video[:, :1])
    np.testing.assert_array_equal(decode(module, params, z, 4, hints), plain)
    params["params"]["decoder"]["hint_0"]["kernel"] += 0.1
    assert (decode(module, params, z, 4, hints) != plain).any(axis=(0, 2, 3, 4)).all()  # in every frame
    with pytest.raises(UsageError, match="cannot be shown a frame"):
        build()[0].apply(build()[1], video[:, :1], method="hints")
