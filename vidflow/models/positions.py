"""Where a token is: learned tables, fixed waves, or rotations, of its place (time, height, width) in the grid."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

WAVELENGTH = 10_000.0


class FactorisedPositions(nn.Module):
    """phi_t(time) + phi_h(height) + phi_w(width), one learned table each, [B, N, 3] -> [B, N, width] (Movie Gen,
    section 3.1.3).

    Tables are indexed, never interpolated: a video beyond them has no position, and the tasks refuse it before any
    array exists.
    """

    lengths: tuple[int, int, int]
    width: int

    @nn.compact
    def __call__(self, position: Int[Array, "B N 3"]) -> Float[Array, "B N D"]:
        init = nn.with_logical_partitioning(nn.initializers.normal(self.width**-0.5), ("position", "embed"))
        total = jnp.zeros((), jnp.float32)
        for axis, (name, length) in enumerate(zip(("time", "height", "width"), self.lengths, strict=True)):
            table = self.param(name, init, (length, self.width))
            total = total + table[position[..., axis]]
        return total


def waves(position: Int[Array, "B N 3"], width: int) -> Float[Array, "B N D"]:
    """Sines and cosines: half of the features for height and half for width, as DiT's, plus waves of time over all of
    them (as Latte's). Needs a width that 4 divides."""
    time, height, wide = jnp.moveaxis(position.astype(jnp.float32), -1, 0)
    return jnp.concatenate([_waves(height, width // 2), _waves(wide, width // 2)], axis=-1) + _waves(time, width)


def _waves(place: Float[Array, "B N"], width: int) -> Float[Array, "B N D"]:
    angle = place[..., None] * _rates(width // 2)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def angles(position: Int[Array, "B N 3"], head: int) -> Float[Array, "B N half"]:
    """The angles by which `rotate` turns the pairs of features of a head: an eighth of the pairs, or one, and
    what is odd follow time, the rest height and width alike, as in HunyuanVideo (16, 56 and 56 of 128 features)."""
    pairs = head // 2
    spatial = (pairs - max(pairs // 8, 1)) // 2
    counts = (pairs - 2 * spatial, spatial, spatial)
    place = position.astype(jnp.float32)
    return jnp.concatenate([place[..., axis, None] * _rates(count) for axis, count in enumerate(counts)], axis=-1)


def rotate(x: Float[Array, "B N K head"], angle: Float[Array, "B N half"]) -> Float[Array, "B N K head"]:
    """Each pair of features (i, i + head / 2) turned by its angle (Su et al. 2021): a product of two turned vectors
    depends on the difference of their places alone."""
    cos, sin = jnp.cos(angle)[:, :, None], jnp.sin(angle)[:, :, None]
    one, other = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([one * cos - other * sin, one * sin + other * cos], axis=-1).astype(x.dtype)


def _rates(count: int) -> Float[Array, "count"]:
    return WAVELENGTH ** (-jnp.arange(count) / max(count, 1))
