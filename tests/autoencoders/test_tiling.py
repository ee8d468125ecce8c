"""Tiles: their seams, their units, and what they must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.autoencoders import tiling
from vidflow.autoencoders.latents import Compression, Posterior
from vidflow.autoencoders.tiling import Tiles
from vidflow.errors import UsageError

PLAIN, CAUSAL = Compression(4, 8, 8, 3), Compression(4, 8, 8, 3, first_alone=True)


def repeat(z, causal=False):
    """A decoder without a receptive field: every pixel is its latent."""
    z = z.repeat(8, axis=2).repeat(8, axis=3)
    return jnp.concatenate([z[:, :1], z[:, 1:].repeat(4, axis=1)], axis=1) if causal else z.repeat(4, axis=1)


def pool(video):
    mean = video.reshape(video.shape[0], -1, 4, video.shape[2] // 8, 8, video.shape[3] // 8, 8, 3).mean(axis=(2, 4, 6))
    return Posterior(mean, -mean)


def latents(*shape):
    return jax.random.normal(jax.random.key(0), (2, *shape, 3))


TILES = [
    Tiles((4, 3, 3), (2, 1, 1)),
    Tiles((3, 2, 4), (0, 0, 2)),
    Tiles((4, 4, 4), (3, 3, 3)),
    Tiles((99, 99, 99), (1, 1, 1)),
    Tiles((1, 1, 1), (0, 0, 0)),
]


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("causal", [False, True])
def test_where_no_pixel_sees_its_neighbours_tiles_change_nothing(tiles, causal):
    z, compression = latents(9, 7, 5), CAUSAL if causal else PLAIN
    if causal and tiles.overlap[0] == 0 and tiles.size[0] < 9:
        tiles = tiles._replace(size=(max(tiles.size[0], 2), *tiles.size[1:]), overlap=(1, *tiles.overlap[1:]))
    whole = repeat(z, causal)
    tiled = jax.jit(lambda z: tiling.decode(lambda z: repeat(z, causal), z, 33, compression, tiles))(z)
    np.testing.assert_allclose(tiled, whole[:, :33], atol=1e-6)


def test_encoding_in_tiles_pads_and_blends_mean_and_variance():
    video = jax.random.normal(jax.random.key(1), (1, 22, 40, 24, 3))
    whole = pool(jnp.pad(video, ((0, 0), (0, 2), (0, 0), (0, 0), (0, 0)), mode="edge"))
    tiled = jax.jit(lambda video: tiling.encode(pool, video, PLAIN, Tiles((3, 2, 2), (1, 1, 0))))(video)
    np.testing.assert_allclose(tiled.mean, whole.mean, atol=1e-6)
    np.testing.assert_allclose(tiled.logvar, whole.logvar, atol=1e-6)


@pytest.mark.parametrize("overlap", [1, 2])
def test_a_latent_that_has_seen_one_frame_of_its_four_does_not_count(overlap):
    def pooled(video):
        """Of a causal encoder: the first frame by itself, then four at a time."""
        first, rest = video[:, :1], video[:, 1:].reshape(video.shape[0], -1, 4, *video.shape[2:]).mean(axis=2)
        mean = jnp.concatenate([first, rest], axis=1)[:, :, ::8, ::8]
        return Posterior(mean, mean)

    video = jax.random.normal(jax.random.key(0), (1, 41, 8, 8, 3))
    found = tiling.encode(pooled, video, CAUSAL, Tiles((4, 1, 1), (overlap, 0, 0)))
    np.testing.assert_allclose(found.mean, pooled(video).mean, atol=1e-6)


def test_the_blend_is_linear_in_pixels():
    """Each tile decodes to its own number; between two of them the picture goes straight from one to the other."""
    z = jnp.arange(6.0).reshape(1, 1, 1, 6, 1).repeat(3, axis=-1)

    def constant(tile):
        return jnp.ones((1, 1, 8, 4 * 8, 3)) * tile[:, :1, :1, :1]

    row = tiling.decode(constant, z, 1, Compression(1, 8, 8, 3), Tiles((1, 1, 4), (0, 0, 2)))[0, 0, 0, :, 0]
    np.testing.assert_allclose(row[:16], 0.0)
    np.testing.assert_allclose(row[16:32], 2 * (np.arange(16) + 0.5) / 16, rtol=1e-5)
    np.testing.assert_allclose(row[32:], 2.0)


def test_tiles_are_spread_evenly_and_share_enough():
    for length in range(1, 40):
        for size, overlap in ((4, 2), (5, 0), (7, 3)):
            axis = tiling.plan((length, 1, 1), PLAIN, Tiles((size, 1, 1), (overlap, 0, 0)))[0]
            steps = np.diff(axis.latents)
            assert axis.latents[0] == 0 and axis.latents[-1] + axis.latent_size == length
            assert (steps <= size - overlap).all() and (steps > 0).all()
            np.testing.assert_allclose(axis.pixel_weight.sum(), length * 4, rtol=1e-6)


@pytest.mark.parametrize("compression", [PLAIN, CAUSAL])
def test_frames_come_out_as_they_are_final_and_equal_the_whole(compression):
    causal = compression.first_alone
    z, tiles = latents(11, 2, 2), Tiles((4, 2, 2), (2, 0, 0))
    axis = tiling.plan((11, 2, 2), compression, tiles)[0]
    blurred = lambda z: repeat(z, causal) + z.mean(axis=(1, 2, 3), keepdims=True)  # noqa: E731
    parts = list(tiling.decode_in_time(blurred, z, 39, axis))
    np.testing.assert_allclose(
        np.concatenate(parts, axis=1), tiling.decode(blurred, z, 39, compression, tiles), atol=1e-5
    )
    assert max(part.shape[1] for part in parts) <= axis.pixel_size and len(parts) > 3


@pytest.mark.parametrize(
    "tiles", [Tiles((0, 1, 1), (0, 0, 0)), Tiles((4, 4, 4), (4, 0, 0)), Tiles((4, 4, 4), (0, -1, 0))]
)
def test_tiles_that_cannot_be_are_refused(tiles):
    with pytest.raises(UsageError, match="cannot overlap by"):
        tiling.plan((4, 4, 4), PLAIN, tiles)


def test_tiles_in_time_of_a_causal_autoencoder_must_overlap():
    with pytest.raises(UsageError, match="must overlap by at least 1 latent"):
        tiling.plan((5, 1, 1), CAUSAL, Tiles((2, 1, 1), (0, 0, 0)))
