"""Videos of any length through a causal autoencoder in constant memory: chunk after chunk, each knowing those before.

    coder = Streaming(wan.module, wan.params)
    for frames in coder.decode(latents, size=(height, width)):
        writer.write(frames)

What comes out is what the whole video would give: nothing is blended and there are no seams. Two programs are compiled,
one for the first chunk and one for every other, and a third where the last chunk is shorter.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.autoencoders.causal3d import CausalAutoencoder
from vidflow.autoencoders.latents import Posterior, check_range
from vidflow.autoencoders.tae import TemporalAutoencoder
from vidflow.errors import UsageError
from vidflow.typing import Video


class Streaming:
    """Encodes and decodes chunk by chunk.

    Raises:
      UsageError: an autoencoder that looks at all frames at once.
    """

    def __init__(self, module: CausalAutoencoder | TemporalAutoencoder, params: Any) -> None:
        if not isinstance(module, CausalAutoencoder) or module.layout.norm == "clip":
            raise UsageError(
                "This autoencoder normalises over all frames or sees later ones, so chunks would not give what the "
                "whole video gives: use tiles (vidflow/autoencoders/tiling.py)."
            )
        if module.layout.attention == "earlier":
            raise UsageError("This autoencoder attends to all earlier frames, which no chunk holds: use tiles.")
        self._module, self._params = module, params
        self._run = jax.jit(
            lambda variables, x, method: module.apply(variables, x, method=method, mutable=["cache"]),
            static_argnums=2,
        )

    def encode(self, video: Any, chunk: int = 1) -> Iterator[Posterior]:
        """Posteriors of 1 latent frame, then of `chunk` at a time. Where the strides do not divide height or width, the
        last row and column are repeated until they do.

        Args:
          video: [B, T, H, W, 3] in [-1, 1], an array or anything that can be sliced like one, as a file in memory map.
          chunk: latent frames at a time after the first.

        Raises:
          UsageError: pixels beyond [-1, 1], at the chunk that has them.
        """
        time, frames = self._module.compression.time, video.shape[1]
        starts = [0, *range(1, frames, chunk * time)]
        ends = [1, *(start + chunk * time for start in starts[1:])]
        call = partial(self._chunks, method="encode_chunk")
        fill = self._module.compression.filled
        yield from call(fill(_filled(_read(video, a, b), b - a, time)) for a, b in zip(starts, ends, strict=True))

    def decode(self, latents: Any, chunk: int = 1, size: tuple[int, int] | None = None) -> Iterator[Video]:
        """The frame of the first latent, then those of `chunk` latents at a time; of each frame, with a `size`, the
        upper left so many rows and columns.

        Args:
          latents: [B, t, h, w, c], not normalised, an array or anything that can be sliced like one.
        """
        starts = range(1, latents.shape[1], chunk)
        parts = [latents[:, :1], *(latents[:, start : start + chunk] for start in starts)]
        for frames in self._chunks(map(jnp.asarray, parts), method="decode_all"):
            yield frames if size is None else frames[:, :, : size[0], : size[1]]

    def _chunks(self, parts: Iterator[jax.Array], method: str) -> Iterator[Any]:
        cache: dict[str, Any] = {}
        for part in parts:
            result, cache = self._run({**self._params, **cache}, part, method)
            yield result


def _read(video: Any, start: int, end: int) -> Video:
    part = jnp.asarray(video[:, start:end])
    check_range(part)
    return part


def _filled(part: Video, frames: int, time: int) -> Float[Array, "B _ H W 3"]:
    """The last chunk with copies of its last frame, up to a multiple of the stride."""
    missing = 0 if frames == 1 else min(frames - part.shape[1], -part.shape[1] % time)
    return jnp.pad(part, ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0)), mode="edge")
