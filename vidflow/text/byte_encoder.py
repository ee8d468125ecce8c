"""A small text encoder over bytes, trained jointly with the video model.

Bytes are cheap to embed and dear to attend to, so a strided convolution turns every `stride` bytes into one token
before the transformer layers (as CANINE does, Clark et al. 2022).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vidflow.attention.attend import attend
from vidflow.attention.mask import Mask
from vidflow.text import byte_tokens
from vidflow.typing import TokenIds

dense_init = nn.initializers.lecun_normal()


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
        # Each token also sees half a stride of bytes on both sides, so a word cut by the grid is still read.
        x = nn.Conv(
            self.width,
            kernel_size=(2 * self.stride,),
            strides=(self.stride,),
            padding=[(self.stride // 2, self.stride // 2)],
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_logical(dense_init, None, "embed", "mlp"),
            name="merge",
        )(x)
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

        def dense(features: int, names: tuple[str, str], name: str) -> nn.Dense:
            init = _logical(dense_init, *names)
            return nn.Dense(features, use_bias=False, dtype=self.dtype, kernel_init=init, name=name)

        h = nn.RMSNorm(dtype=self.dtype, name="attention_norm")(x)
        q, k, v = (dense(width, ("embed", "heads"), name)(h) for name in ("query", "key", "value"))
        q, k, v = (a.reshape(*a.shape[:2], self.heads, -1) for a in (q, k, v))
        h = attend(q, k, v, Mask(segment, segment)).reshape(x.shape)
        x = x + dense(width, ("heads", "embed"), "out")(h)
        h = nn.RMSNorm(dtype=self.dtype, name="mlp_norm")(x)
        h = nn.gelu(dense(4 * width, ("embed", "mlp"), "up")(h))
        return x + dense(width, ("mlp", "embed"), "down")(h)


def _logical(init: nn.initializers.Initializer, *names: str | None) -> nn.initializers.Initializer:
    return nn.with_logical_partitioning(init, names)
