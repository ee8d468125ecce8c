"""Causal autoencoders: no frame knows a later one, chunks give what the whole gives, any length goes in and out."""

import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow import config as configs
from vidflow.autoencoders.causal3d import HUNYUAN_VIDEO, WAN, CausalAutoencoder
from vidflow.autoencoders.latents import Posterior
from vidflow.tasks import frozen_autoencoder

ROOT = Path(__file__).parents[2]
SMALL = {"widths": (6, 6, 8), "strides": (1, 2), "up_strides": (1, 2), "blocks": 1, "channels": 3, "groups": 2}
LAYOUTS = {
    "wan": WAN._replace(**SMALL),
    "frames": WAN._replace(**SMALL, norm="frames", edge=True, jointly=True),
    "patches": WAN._replace(**SMALL | {"widths": (6, 8), "strides": (2,), "up_strides": (2,)}, patch=2),
    "hunyuan": HUNYUAN_VIDEO._replace(**SMALL | {"up_strides": (2, 1)}),
}


class Model:
    """A module with random parameters, biases and scales included, so that nothing is hidden by a zero."""

    def __init__(self, name):
        self.module = CausalAutoencoder(LAYOUTS[name])
        params = nn.unbox(jax.jit(self.module.init)(jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3))))
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(7), len(leaves))
        leaves = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
        self.params = tree.unflatten(leaves)
        self._apply = jax.jit(
            lambda variables, x, method, mutable: self.module.apply(variables, x, method=method, mutable=mutable),
            static_argnums=(2, 3),
        )

    def encode(self, video):
        return self._apply(self.params, video, CausalAutoencoder.encode, False).mean

    def decode(self, z, frames):
        return self._apply(self.params, z, CausalAutoencoder.decode_all, False)[:, :frames]

    def chunks(self, x, sizes, method):
        """The parts one after another, each with what the one before it left; and how much each left."""
        cache, parts, left, start = {}, [], [], 0
        for size in sizes:
            part, cache = self._apply({**self.params, **cache}, x[:, start : start + size], method, ("cache",))
            parts.append(part.mean if isinstance(part, Posterior) else part)
            left.append(sum(leaf.size for leaf in jax.tree.leaves(cache)))
            start += size
        return jnp.concatenate(parts, axis=1), left


MODELS = functools.cache(Model)
every = pytest.mark.parametrize("name", LAYOUTS)
# HunyuanVideo's normalisation looks at all frames.
streaming = pytest.mark.parametrize("name", ["wan", "frames", "patches"])


def clip(frames):
    return jax.random.uniform(jax.random.key(frames), (2, frames, 8, 8, 3), minval=-1.0)


@every
@pytest.mark.parametrize("frames", [1, 4, 5])
def test_any_number_of_frames_goes_in_and_out(name, frames):
    model = MODELS(name)
    z = model.encode(clip(frames))
    assert z.shape == (2, *model.module.compression.latent_shape(frames, 8, 8))
    assert z.shape[1] == 1 + -(-(frames - 1) // 2)
    assert model.decode(z, frames).shape == (2, frames, 8, 8, 3)


@every
def test_frames_that_are_missing_are_copies_of_the_last(name):
    video = clip(4)
    whole = jnp.concatenate([video, video[:, -1:]], axis=1)
    np.testing.assert_allclose(MODELS(name).encode(video), MODELS(name).encode(whole), atol=1e-6)


@streaming
def test_no_frame_knows_a_later_one(name):
    model = MODELS(name)
    z = [model.encode(video) for video in (clip(5), clip(5).at[:, 3:].set(0.3))]
    pixels = [model.decode(latents, 5) for latents in (z[0], z[0].at[:, 2:].set(0.3))]
    for (one, two), same in ((z, 2), (pixels, 3)):
        np.testing.assert_allclose(one[:, :same], two[:, :same], atol=1e-5)
        assert np.abs(one - two)[:, same:].max() > 0.01


@streaming
@pytest.mark.parametrize("sizes", [(1, 2, 2), (3, 2)])
def test_chunks_give_what_the_whole_video_gives(name, sizes):
    model, video = MODELS(name), clip(5)
    z = model.encode(video)
    np.testing.assert_allclose(model.chunks(video, sizes, CausalAutoencoder.encode_chunk)[0], z, atol=1e-5)
    latents = [1 + (sizes[0] - 1) // 2, *(size // 2 for size in sizes[1:])]
    decoded, _ = model.chunks(z, latents, CausalAutoencoder.decode_all)
    np.testing.assert_allclose(decoded, model.decode(z, 5), atol=2e-5)


@streaming
def test_what_a_chunk_leaves_does_not_grow(name):
    z = jax.random.normal(jax.random.key(0), (1, 6, 2, 2, 3))
    _, left = MODELS(name).chunks(z, (1,) * 6, CausalAutoencoder.decode_all)
    assert len(set(left)) == 1


@every
def test_gradients_reach_every_parameter(name):
    model = MODELS(name)
    loss = jax.jit(jax.grad(lambda params: jnp.square(model.module.apply(params, clip(3)) - clip(3)).mean()))
    for path, leaf in jax.tree_util.tree_leaves_with_path(loss(model.params)):
        place = jax.tree_util.keystr(path, simple=True, separator="/")
        # Softmax does not see the bias of keys, nor group normalisation of one feature a group that of its input.
        assert np.abs(leaf).max() > 0 or place.endswith("key/bias"), place


def test_the_published_sizes():
    """Wan 2.1: 126,892,531 parameters; HunyuanVideo: 246,478,803 (diffusers' own, counted)."""
    counts = []
    for layout in (WAN, HUNYUAN_VIDEO):
        module = CausalAutoencoder(layout)
        params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3)))
        counts.append(sum(leaf.size for leaf in jax.tree.leaves(params)))
    assert counts == [126_892_531, 246_478_803]


def test_a_model_of_no_groups_is_not_normalised():
    layout = WAN._replace(widths=(4, 6), strides=(2,), up_strides=(2,), blocks=1, channels=3, norm="frames", groups=0)
    module = CausalAutoencoder(layout)
    params = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3))))
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert names and not any("norm" in name for name in names)


@every
def test_a_fresh_model_is_one_of_images(name):
    """Each frame of a still video becomes what its image becomes; in float64, for other shapes round otherwise."""
    layout = LAYOUTS[name]._replace(norm="rms")  # "clip" looks at all frames from the start
    with jax.enable_x64(True):
        module = CausalAutoencoder(layout, jnp.float64)
        params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3)))
        image = clip(1)
        frames = jax.jit(module.apply)(params, jnp.repeat(image, 5, axis=1))
        np.testing.assert_allclose(frames, jnp.repeat(jax.jit(module.apply)(params, image), 5, axis=1), atol=5e-6)


@pytest.mark.parametrize(("name", "layout"), [("wan", WAN), ("hunyuan_video", HUNYUAN_VIDEO)])
def test_the_experiment_trains_the_published_layouts(name, layout):
    config = configs.load(f"{ROOT}/experiments/moviegen/autoencoder.py:like={name}")
    assert frozen_autoencoder.make_model(config.model).layout == layout
