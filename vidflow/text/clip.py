"""CLIP's text tower (Radford et al. 2021): a causal transformer over words, and its state at the end of the text.

The published ones read 77 tokens; `longer` stretches their table of positions for longer prompts.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vidflow.attention.attend import attend
from vidflow.attention.mask import ORDERS, Mask
from vidflow.linear import linear, linears
from vidflow.text.layers import stacked
from vidflow.typing import TokenIds

ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # OpenAI's
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


class ClipSize(NamedTuple):
    """What tells these towers apart.

    Attributes:
      vocabulary: rows of the embedding.
      width, layers, heads, feed_forward: of the transformer.
      tokens: of the longest text.
      activation: a key of `ACTIVATIONS`.
      projection: width of the space that is shared with images; 0: none is there.
      epsilon: added to the variance in normalisation.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    tokens: int = 77
    activation: str = "quick_gelu"
    projection: int = 0
    epsilon: float = 1e-5


class ClipText(nn.Module):
    """Token identifiers [B, L] and which of them are real, at most `size.tokens` -> embeddings [B, L, width], and
    pooled [B, projection or width]: the last real token's, the end of the text."""

    size: ClipSize
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, ids: TokenIds, real: Bool[Array, "B L"]
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B E"]]:
        size, length = self.size, ids.shape[1]
        normal = nn.initializers.normal(0.02)
        words = nn.with_logical_partitioning(normal, ("vocab", "embed"))
        places = nn.with_logical_partitioning(normal, ("position", "embed"))
        x = self.param("embedding", words, (size.vocabulary, size.width))[ids]
        x = (x + self.param("position", places, (size.tokens, size.width))[:length]).astype(self.dtype)
        order = jnp.broadcast_to(ORDERS + jnp.arange(length), ids.shape)
        x, _ = stacked(Layer, size.layers)(size, self.dtype, name="layers")(x, order)
        x = _norm(size, self.dtype, "norm")(x)
        last = jnp.maximum(real.sum(axis=1) - 1, 0)
        pooled = jnp.take_along_axis(x, last[:, None, None], axis=1)
        if size.projection:
            pooled = linear(pooled, "projection", size.projection, ("embed", "latent"), self.dtype)
        return x, pooled[:, 0]


class Layer(nn.Module):
    """A pre-norm layer whose tokens see those before them."""

    size: ClipSize
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], order: TokenIds) -> tuple[Float[Array, "B L D"], None]:
        size, dtype = self.size, self.dtype
        h = _norm(size, dtype, "attention_norm")(x)
        q, k, v = linears(h, ("query", "key", "value"), size.width, ("embed", "heads"), dtype, bias=True)
        q, k, v = (part.reshape(*part.shape[:2], size.heads, -1) for part in (q, k, v))
        h = attend(q, k, v, Mask(order, order, relation="earlier")).reshape(x.shape)
        x = x + linear(h, "out", size.width, ("heads", "embed"), dtype, bias=True)
        h = linear(_norm(size, dtype, "mlp_norm")(x), "up", size.feed_forward, ("embed", "mlp"), dtype, bias=True)
        h = ACTIVATIONS[size.activation](h)
        return x + linear(h, "down", size.width, ("mlp", "embed"), dtype, bias=True), None


def longer(positions: Float[np.ndarray, "P D"], tokens: int) -> Float[np.ndarray, "L D"]:
    """A table of positions stretched to so many tokens: both ends stay, what is between is interpolated linearly.

    A model wants finetuning on long texts afterwards, as Movie Gen's MetaCLIP had (section 3.1.3).
    """
    places = np.linspace(0, len(positions) - 1, tokens)
    low = np.minimum(places.astype(int), len(positions) - 2)
    share = (places - low)[:, None].astype(positions.dtype)
    return (1 - share) * positions[low] + share * positions[low + 1]


def _norm(size: ClipSize, dtype: Any, name: str) -> nn.LayerNorm:
    ones, zeros = (
        nn.with_logical_partitioning(init, ("features",)) for init in (nn.initializers.ones, nn.initializers.zeros)
    )
    return nn.LayerNorm(epsilon=size.epsilon, dtype=dtype, scale_init=ones, bias_init=zeros, name=name)
