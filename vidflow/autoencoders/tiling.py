"""Encoding and decoding in tiles of time and space that overlap, so that memory does not grow with the video.

Sizes of tiles and overlaps are in latents; what is blended is in the units of the result: where two tiles overlap, one
fades out and the other in, linearly from pixel to pixel, or from latent to latent. Tiles are of one size, so that one
program serves all of them, and spread evenly, so that neighbours overlap by no less than was asked for. Movie Gen's
decoder has tiles of 4 latent frames that overlap by 2 (section 3.1.1).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vidflow.autoencoders.latents import Compression, Posterior
from vidflow.errors import UsageError
from vidflow.typing import Latents, Video

Decode = Callable[[Latents], Video]  # latents of a tile -> all its frames
Encode = Callable[[Video], Posterior]


class Tiles(NamedTuple):
    """Latents of a tile and latents that neighbours share, each along (time, height, width)."""

    size: tuple[int, int, int]
    overlap: tuple[int, int, int]

    def check(self) -> "Tiles":
        """Raises UsageError if a tile has no latents, or nothing that is not shared."""
        for axis, size, overlap in zip(("time", "height", "width"), *self, strict=True):
            if size < 1 or not 0 <= overlap < size:
                raise UsageError(
                    f"Tiles of {size} latents along {axis} cannot overlap by {overlap}: use more, or less overlap."
                )
        return self


class Axis(NamedTuple):
    """The tiles along one axis.

    Attributes:
      latents, pixels: where each tile begins, among latents and among pixels.
      latent_size, pixel_size: of a tile.
      latent_weight, pixel_weight: [tiles, size], what each tile counts for at each place; of all tiles that cover a
        place they add up to 1.
    """

    latents: np.ndarray
    pixels: np.ndarray
    latent_size: int
    pixel_size: int
    latent_weight: np.ndarray
    pixel_weight: np.ndarray


def decode(run: Decode, z: Latents, num_frames: int, compression: Compression, tiles: Tiles) -> Video:
    """The first `num_frames` frames of `run(z)`, tile by tile; the video itself is held whole.

    Raises:
      UsageError: tiles that cannot be.
    """
    axes = plan(z.shape[1:4], compression, tiles)
    return _blend(run, z, axes, to_pixels=True)[:, :num_frames]


def encode(run: Encode, video: Video, compression: Compression, tiles: Tiles) -> Posterior:
    """`run(video)`, tile by tile; where tiles overlap, means and log-variances are blended.

    Raises:
      UsageError: tiles that cannot be.
    """
    latents = compression.latent_shape(*video.shape[1:4])[:3]
    axes = plan(latents, compression, tiles)
    missing = int(axes[0].pixels[-1]) + axes[0].pixel_size - video.shape[1]
    video = jnp.pad(video, ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0)), mode="edge")
    return _blend(run, video, axes, to_pixels=False)


def encode_with(module: Any, tiles: Tiles | None) -> Callable[[Any, Video], Posterior]:
    """(params, video) -> posterior, in tiles where there are any."""

    def in_tiles(params: Any, video: Video) -> Posterior:
        run = partial(module.apply, params, method="encode")
        return encode(run, video, module.compression, tiles) if tiles else run(video)

    return in_tiles


def decode_with(module: Any, tiles: Tiles | None) -> Callable[[Any, Latents, int], Video]:
    """(params, latents, frames) -> video, in tiles where there are any."""

    def in_tiles(params: Any, z: Latents, frames: int) -> Video:
        if not tiles:
            return module.apply(params, z, frames, method="decode")
        run = partial(module.apply, params, method="decode_all")
        return decode(run, z, frames, module.compression, tiles)

    return in_tiles


def decode_in_time(run: Callable[[Latents], Any], z: Any, num_frames: int, axis: Axis) -> Iterator[np.ndarray]:
    """Decodes one tile of time after another and gives frames as soon as they are final: constant memory.

    Args:
      run: latents of a tile of time, of the whole picture -> its frames.
      z: latents [B, t, h, w, c], an array or anything that can be sliced like one.
      axis: of time, from `plan`.

    Yields: consecutive frames [B, n, H, W, 3], `num_frames` in all.
    """
    pending, given = None, 0  # frames that a later tile still adds to
    for tile, (start, weight) in enumerate(zip(axis.latents, axis.pixel_weight, strict=True)):
        frames = np.asarray(run(z[:, start : start + axis.latent_size])) * weight[:, None, None, None]
        if pending is not None:
            frames[:, : pending.shape[1]] += pending
        last = tile + 1 == len(axis.latents)
        final = axis.pixel_size if last else int(axis.pixels[tile + 1] - axis.pixels[tile])
        pending = frames[:, final:]
        whole = frames[:, : min(final, num_frames - given)]
        given += whole.shape[1]
        if whole.shape[1]:
            yield whole


def plan(latents: tuple[int, int, int], compression: Compression, tiles: Tiles) -> tuple[Axis, Axis, Axis]:
    """The tiles of so many latents along (time, height, width).

    Raises:
      UsageError: tiles that cannot be, or those of a causal autoencoder without overlap in time.
    """
    strides = (compression.time, compression.height, compression.width)
    alone = (compression.first_alone, False, False)
    sizes = zip(latents, tiles.check().size, tiles.overlap, strides, alone, strict=True)
    return tuple(_axis(*each) for each in sizes)


def _axis(length: int, size: int, overlap: int, stride: int, first_alone: bool) -> Axis:
    size = min(size, length)
    if first_alone and size < length and not overlap:
        raise UsageError(
            "Tiles in time of a causal autoencoder must overlap by at least 1 latent, for the first of a tile is one "
            "frame alone: raise the overlap."
        )
    count = 1 if size == length else -(-(length - overlap) // (size - overlap))
    starts = np.round(np.linspace(0, length - size, count)).astype(int)
    # Latent k of a causal autoencoder ends with frame k * stride, and the first latent of a tile is one frame.
    pixel_size = 1 + (size - 1) * stride if first_alone else size * stride
    latent_weight = _fade(starts, size, knows_first=not first_alone)
    return Axis(starts, starts * stride, size, pixel_size, latent_weight, _fade(starts * stride, pixel_size))


def _fade(starts: np.ndarray, size: int, knows_first: bool = True) -> np.ndarray:
    """[tiles, size]: linear from tile to tile where they overlap, and 1 elsewhere. If not `knows_first`, a tile's first
    latent, which stands for more frames than it has seen, counts in the first tile alone."""
    weight = np.ones((len(starts), size))
    places = np.arange(size) + 0.5
    for tile in range(len(starts) - 1):
        shared = starts[tile] + size - starts[tile + 1]
        if shared > 0:
            weight[tile + 1] *= np.clip(places / shared, 0, 1)
            weight[tile] *= np.clip((size - places) / shared, 0, 1)
    if not knows_first:
        weight[1:, 0] = 0
    total = np.zeros(starts[-1] + size)
    for start, own in zip(starts, weight, strict=True):
        total[start : start + size] += own
    return np.stack([own / total[start : start + size] for start, own in zip(starts, weight, strict=True)])


def _blend(run: Callable[[Any], Any], source: Any, axes: tuple[Axis, Axis, Axis], to_pixels: bool) -> Any:
    """Runs every tile of the source and adds up what comes out, each times its weight: a loop of one body."""
    ends = (("latents", "latent_size"), ("pixels", "pixel_size"))
    (at, size), (to, _) = ends if to_pixels else ends[::-1]
    weights = [axis.pixel_weight if to_pixels else axis.latent_weight for axis in axes]
    length = [int(getattr(axis, to)[-1]) + weight.shape[1] for axis, weight in zip(axes, weights, strict=True)]
    shape = [getattr(axis, size) for axis in axes]
    number = np.stack(np.meshgrid(*(np.arange(len(axis.latents)) for axis in axes), indexing="ij"), -1).reshape(-1, 3)
    tiles = (
        jnp.asarray(np.stack([getattr(axis, at)[n] for axis, n in zip(axes, number.T, strict=True)], 1)),
        jnp.asarray(np.stack([getattr(axis, to)[n] for axis, n in zip(axes, number.T, strict=True)], 1)),
        [jnp.asarray(weight[n], jnp.float32) for weight, n in zip(weights, number.T, strict=True)],
    )
    one = jax.eval_shape(run, jax.ShapeDtypeStruct((source.shape[0], *shape, source.shape[-1]), source.dtype))
    empty = jax.tree.map(lambda x: jnp.zeros((x.shape[0], *length, x.shape[-1]), x.dtype), one)

    def add(result: Any, tile: Any) -> tuple[Any, None]:
        begin, end, (along_time, along_height, along_width) = tile
        weight = along_time[:, None, None, None] * along_height[:, None, None] * along_width[:, None]
        part = run(jax.lax.dynamic_slice(source, (0, *begin, 0), (source.shape[0], *shape, source.shape[-1])))

        def onto(whole: jax.Array, part: jax.Array) -> jax.Array:
            place = (0, *end, 0)
            before = jax.lax.dynamic_slice(whole, place, part.shape)
            return jax.lax.dynamic_update_slice(whole, before + (part * weight).astype(whole.dtype), place)

        return jax.tree.map(onto, result, part), None

    return jax.lax.scan(add, empty, tiles)[0]
