"""A small text encoder over bytes, trained jointly with the video model.

Bytes are cheap to embed and dear to attend to, so every `stride` bytes become one token before the transformer layers
(as in CANINE, Clark et al. 2022). A convolution detects short strings wherever they stand, and a maximum over the bytes
of a token keeps what was found, so that a word looks the same whichever place of the grid it begins at.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vidflow.attention.attend import attend
from vidflow.attention.mask import Mask
from vidflow.linear import linear, linear_init, linears
from vidflow.text import byte_tokens
from vidflow.typing import TokenIds

WORD = 8  # bytes that the convolution reads: most words with the space before them


class ByteEncoder(nn.Module):
    """Byte identifiers [B, bytes] -> text tokens [B, L, width] and their segment [B, L], L = bytes / stride."""

    width: int
    layers: int
    heads: int
    length: int
    stride: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: TokenIds) -> tuple[Float[Array, "B tokens D"], Int[Array, "B tokens"]]:
        table = self.param(
            "bytes", _logical(nn.initializers.normal(1.0), "vocab", "embed"), (byte_tokens.VOCABULARY, self.width)
        )
        position = self.param(
            "position", _logical(nn.initializers.normal(0.5), "position", "embed"), (self.length, self.width)
        )
        x = (table[ids] + position[: ids.shape[1]]).astype(self.dtype)
        real = ids != byte_tokens.PADDING
        x = jnp.where(real[..., None], x, 0)
        x = nn.Conv(
            self.width,
            kernel_size=(WORD,),
            padding=[(WORD - 1, 0)],
            dtype=self.dtype,
            kernel_init=_logical(linear_init, None, "embed", "mlp"),
            name="words",
        )(x)
        x = jnp.where(real[..., None], nn.gelu(x), 0)
        x = x.reshape(x.shape[0], -1, self.stride, self.width).max(axis=2)
        segment = real[:, :: self.stride].astype(jnp.int32)
        for index in range(self.layers):
            x = Layer(self.heads, self.dtype, name=f"layer_{index}")(x, segment)
        return nn.RMSNorm(dtype=self.dtype, name="norm")(x), segment


class Layer(nn.Module):
    """A pre-norm bidirectional transformer layer."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B tokens D"], segment: Int[Array, "B tokens"]
    ) -> Float[Array, "B tokens D"]:
        width = x.shape[-1]

        h = nn.RMSNorm(dtype=self.dtype, name="attention_norm")(x)
        q, k, v = linears(h, ("query", "key", "value"), width, ("embed", "heads"), self.dtype)
        q, k, v = (a.reshape(*a.shape[:2], self.heads, -1) for a in (q, k, v))
        h = attend(q, k, v, Mask(segment, segment, relation="all")).reshape(x.shape)
        x = x + linear(h, "out", width, ("heads", "embed"), self.dtype)
        h = nn.RMSNorm(dtype=self.dtype, name="mlp_norm")(x)
        h = nn.gelu(linear(h, "up", 4 * width, ("embed", "mlp"), self.dtype))
        return x + linear(h, "down", width, ("mlp", "embed"), self.dtype)


def _logical(init: nn.initializers.Initializer, *names: str | None) -> nn.initializers.Initializer:
    return nn.with_logical_partitioning(init, names)
