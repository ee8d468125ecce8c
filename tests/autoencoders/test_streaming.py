"""Long videos in chunks: equal to the whole, and in constant memory."""

import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.autoencoders.causal3d import HUNYUAN_VIDEO, WAN, CausalAutoencoder
from vidflow.autoencoders.streaming import Streaming
from vidflow.autoencoders.tae import TemporalAutoencoder
from vidflow.errors import UsageError

ROOT = Path(__file__).parents[2]
LAYOUT = WAN._replace(widths=(4, 6), strides=(2,), up_strides=(2,), blocks=1, channels=3)


@pytest.fixture(scope="module")
def model():
    module = CausalAutoencoder(LAYOUT)
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3))))
    leaves, tree = jax.tree.flatten(params)  # a fresh one looks at no frame but the latest
    keys = jax.random.split(jax.random.key(7), len(leaves))
    noise = [0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return module, jax.tree.map(jnp.add, params, tree.unflatten(noise))


@pytest.mark.parametrize(("frames", "chunk"), [(1, 1), (6, 1), (11, 2), (12, 3)])
def test_chunks_are_the_whole(model, frames, chunk):
    module, params = model
    video = jax.random.uniform(jax.random.key(1), (1, frames, 8, 8, 3), minval=-1)
    whole = jax.jit(lambda video: module.apply(params, video, method="encode").mean)(video)
    z = jnp.concatenate([part.mean for part in Streaming(module, params).encode(video, chunk)], axis=1)
    np.testing.assert_allclose(z, whole, atol=1e-5)
    again = jnp.concatenate(list(Streaming(module, params).decode(z, chunk)), axis=1)[:, :frames]
    decoded = jax.jit(lambda z: module.apply(params, z, frames, method="decode"))(z)
    np.testing.assert_allclose(again, decoded, atol=1e-5)


def test_sizes_that_strides_do_not_divide_are_filled_up_and_cut(model):
    coder, video = Streaming(*model), np.random.default_rng(2).uniform(-1, 1, (1, 3, 7, 9, 3)).astype(np.float32)
    filled = np.pad(video, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    z, expected = (np.concatenate([part.mean for part in coder.encode(x)], axis=1) for x in (video, filled))
    assert z.shape == (1, 2, 4, 5, 3)
    np.testing.assert_array_equal(z, expected)
    for cut, whole in zip(coder.decode(z, size=(7, 9)), coder.decode(z), strict=True):
        np.testing.assert_array_equal(cut, whole[:, :, :7, :9])


def test_pixels_out_of_range_are_refused_where_they_come(model):
    video = np.zeros((1, 9, 8, 8, 3), np.float32)
    video[:, 7] = 2.0
    parts = Streaming(*model).encode(video)
    for _ in range(4):  # frames 0, 1-2, 3-4, 5-6
        next(parts)
    with pytest.raises(UsageError, match="from 0 to 2"):
        next(parts)


def test_a_thousand_frames_need_two_programs_and_no_more_memory_than_ten(model):
    z = np.random.default_rng(0).normal(size=(1, 501, 4, 4, 3)).astype(np.float32)
    coder = Streaming(*model)
    held, frames = [], 0
    for part in coder.decode(z):
        frames += part.shape[1]
        held.append(sum(x.nbytes for x in jax.live_arrays()))
    assert frames == 1001 and coder._run._cache_size() == 2
    assert max(held[10:]) == max(held[2:10])


DECODE = """
import resource
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np
from vidflow.autoencoders.causal3d import CausalAutoencoder
from vidflow.autoencoders.streaming import Streaming
from tests.autoencoders.test_streaming import LAYOUT

module = CausalAutoencoder(LAYOUT)
params = nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3))))
latents = np.random.default_rng(0).normal(size=(1, 501, 32, 32, 3)).astype(np.float32)
frames = 0
for number, part in enumerate(Streaming(module, params).decode(latents)):
    frames += np.asarray(part).shape[1]
    if number in (50, 500):
        print(frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_the_process_has_its_peak_of_memory_in_the_first_hundred_frames():
    """900 further frames of 64 x 64 would be 42 MiB, and as much again in whatever kept them."""
    said = subprocess.run([sys.executable, "-c", DECODE], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (first, before), (last, after) = (map(int, line.split()) for line in said.splitlines())
    assert (first, last) == (101, 1001) and after - before < 4 * 1024  # KiB


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (CausalAutoencoder(HUNYUAN_VIDEO), "normalises over all frames"),
        (CausalAutoencoder(WAN._replace(attention="earlier")), "attends to all earlier frames"),
        (TemporalAutoencoder(), "sees later ones"),
    ],
)
def test_what_looks_at_all_frames_cannot_stream(module, why):
    with pytest.raises(UsageError, match=why):
        Streaming(module, {})
