"""Latent videos as sequences of spacetime patches, and back."""

from typing import Any, NamedTuple

import flax.struct
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from vidflow.typing import Latents


class Grid(NamedTuple):
    """How many patches a latent video has along time, height and width."""

    time: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        return self.time * self.height * self.width


@flax.struct.dataclass
class Tokens:
    """A batch of token sequences: all a transformer knows of what its tokens are.

    Packing, variable size and duration are values of these arrays; an unpacked batch, the only one that `patchify`
    makes, is the case of one segment.

    Attributes:
      x: [B, N, D] features.
      position: [B, N, 3] integer (time, height, width) coordinates in the grid of patches.
      segment: [B, N] integers; 0 is padding, equal segments may attend to each other.
      packed: whether a row may hold several segments. Without, every real token of a row sees every other, which more
        attention kernels can do.
    """

    x: Any
    position: Any
    segment: Any
    packed: bool = flax.struct.field(pytree_node=False, default=False)


def grid_of(latent_shape: tuple[int, ...], patch: tuple[int, int, int]) -> Grid:
    """The grid of patches of latents [..., T, H, W, C].

    Raises:
      ValueError: a side that the patch does not divide (the tasks check sizes before any array exists).
    """
    sides = latent_shape[-4:-1]
    if any(side % step for side, step in zip(sides, patch, strict=True)):
        raise ValueError(f"Latents of (time, height, width) {sides} do not divide into patches of {patch}.")
    return Grid(*(side // step for side, step in zip(sides, patch, strict=True)))


def patchify(latents: Latents, patch: tuple[int, int, int]) -> Tokens:
    """Cut latents into patches of (time, height, width), one token each, in time-major order."""
    grid = grid_of(latents.shape, patch)
    x = rearrange(latents, "b (t i) (h j) (w k) c -> b (t h w) (i j k c)", i=patch[0], j=patch[1], k=patch[2])
    position = jnp.stack(jnp.meshgrid(*map(jnp.arange, grid), indexing="ij"), axis=-1).reshape(-1, 3)
    batch = latents.shape[0]
    return Tokens(
        x=x,
        position=jnp.broadcast_to(position, (batch, grid.tokens, 3)),
        segment=jnp.ones((batch, grid.tokens), jnp.int32),
    )


def unpatchify(x: Float[Array, "B N features"], grid: Grid, patch: tuple[int, int, int]) -> Latents:
    """The inverse of `patchify` on the features."""
    return rearrange(
        x,
        "b (t h w) (i j k c) -> b (t i) (h j) (w k) c",
        t=grid.time,
        h=grid.height,
        w=grid.width,
        i=patch[0],
        j=patch[1],
        k=patch[2],
    )
