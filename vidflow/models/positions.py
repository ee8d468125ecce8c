"""Where a token is: factorised learned positions (Movie Gen, section 3.1.3)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class FactorisedPositions(nn.Module):
    """phi_t(time) + phi_h(height) + phi_w(width), one learned table each, [B, N, 3] -> [B, N, width].

    Added to the input of every layer. Tables are indexed, never interpolated: a video beyond them has no position,
    and the tasks refuse it before any array exists.
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
