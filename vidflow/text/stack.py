"""Embeddings of several frozen text encoders as one sequence of text tokens (Movie Gen, section 3.1.3)."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vidflow.linear import linear


class Encoder(NamedTuple):
    """One encoder's output: its name, how many tokens it gives, and their width."""

    name: str
    tokens: int
    width: int


class TextStack(nn.Module):
    """Each encoder's embeddings go through a projection and a LayerNorm of their own; the results are concatenated.

    Takes `{name: {"embeddings": [B, tokens, its width], "mask": [B, tokens] bool}}` and gives tokens [B, L, width] with
    their segment [B, L], L the sum of all tokens: 1 where the mask holds, 0 for padding, which no video token sees.
    """

    encoders: tuple[Encoder, ...]
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, text: dict[str, dict[str, Array]]) -> tuple[Float[Array, "B L D"], Int[Array, "B L"]]:
        parts = []
        for encoder in self.encoders:
            x = text[encoder.name]["embeddings"]
            x = linear(x, f"{encoder.name}_projection", self.width, ("latent", "embed"), self.dtype)
            parts.append(nn.LayerNorm(dtype=self.dtype, name=f"{encoder.name}_norm")(x))
        mask = jnp.concatenate([text[encoder.name]["mask"] for encoder in self.encoders], axis=1)
        return jnp.concatenate(parts, axis=1), mask.astype(jnp.int32)
