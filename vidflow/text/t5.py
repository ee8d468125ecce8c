"""The encoder of T5 v1.1 (Raffel et al. 2020; Shazeer 2020), which UL2, ByT5 and UMT5 share: RMS normalisation, a gated
feed-forward network, and positions as a bias that depends on how far apart two tokens are.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vidflow.linear import linear, linears
from vidflow.text.layers import stacked
from vidflow.typing import TokenIds

FAR_BELOW = -1e9  # a logit that no softmax sees; finite, so that a row without keys gives no NaN


ACTIVATIONS = {"gelu": nn.gelu, "silu": nn.silu}


class T5Size(NamedTuple):
    """What tells these encoders apart.

    Attributes:
      vocabulary: rows of the embedding.
      width, layers, heads, head, feed_forward: of the transformer; `head` is the width of one.
      activation: of the gate, a key of `ACTIVATIONS`; UL2's is "silu".
      own_positions: every layer has a table of positions of its own (UMT5), otherwise they share that of the first.
      buckets, reach: of the distances that the table tells apart, and where the last one begins.
      epsilon: added to the mean square in normalisation.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    head: int
    feed_forward: int
    activation: str = "gelu"
    own_positions: bool = False
    buckets: int = 32
    reach: int = 128
    epsilon: float = 1e-6


class T5Encoder(nn.Module):
    """Token identifiers [B, L] and which of them are real -> embeddings [B, L, width]."""

    size: T5Size
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: TokenIds, real: Bool[Array, "B L"]) -> Float[Array, "B L D"]:
        size = self.size
        init = nn.with_logical_partitioning(nn.initializers.normal(1.0), ("vocab", "embed"))
        x = self.param("embedding", init, (size.vocabulary, size.width))[ids].astype(self.dtype)
        seen = jnp.where(real, 0.0, FAR_BELOW)[:, None, None]
        bias = seen if size.own_positions else seen + Positions(size, name="positions")(ids.shape[1])
        x, _ = stacked(Layer, size.layers)(size, self.dtype, name="layers")(x, bias)
        return _norm(size, self.dtype, "norm")(x)


class Layer(nn.Module):
    """A pre-norm layer: attention with a bias, unscaled, then the gated feed-forward network."""

    size: T5Size
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], bias: Float[Array, "B K l L"]) -> tuple[Float[Array, "B L D"], None]:
        size, dtype = self.size, self.dtype
        h = _norm(size, dtype, "attention_norm")(x)
        q, k, v = linears(h, ("query", "key", "value"), size.heads * size.head, ("embed", "heads"), dtype)
        q, k, v = (part.reshape(*part.shape[:2], size.heads, size.head) for part in (q, k, v))
        if size.own_positions:
            bias = bias + Positions(size, name="positions")(x.shape[1])
        logits = jnp.einsum("bqkh,bpkh->bkqp", q, k, preferred_element_type=jnp.float32) + bias
        weights = jax.nn.softmax(logits).astype(dtype)
        h = jnp.einsum("bkqp,bpkh->bqkh", weights, v).reshape(*x.shape[:2], -1)
        x = x + linear(h, "out", size.width, ("heads", "embed"), dtype)

        h = _norm(size, dtype, "mlp_norm")(x)
        gate, up = linears(h, ("gate", "up"), size.feed_forward, ("embed", "mlp"), dtype)
        return x + linear(ACTIVATIONS[size.activation](gate) * up, "down", size.width, ("mlp", "embed"), dtype), None


class Positions(nn.Module):
    """What a head adds to the logit of two tokens by their distance, [K, L, L]."""

    size: T5Size

    @nn.compact
    def __call__(self, length: int) -> Float[Array, "K L L"]:
        size = self.size
        init = nn.with_logical_partitioning(nn.initializers.normal(0.1), (None, "heads"))
        table = self.param("table", init, (size.buckets, size.heads)).astype(jnp.float32)
        return table[_buckets(length, size.buckets, size.reach)].transpose(2, 0, 1)


def _buckets(length: int, buckets: int, reach: int) -> Int[np.ndarray, "L L"]:
    """The row of the table for each query (row) and key (column): half of them for keys behind the query, and of each
    half the nearer distances one by one, farther ones by their logarithm up to `reach` (Raffel et al. 2020, 2.1)."""
    distance = np.arange(length)[None] - np.arange(length)[:, None]
    half, near = buckets // 2, buckets // 4
    if not 0 < near < reach:
        raise ValueError(f"{buckets} buckets of distances up to {reach}")
    away = np.abs(distance)
    # In float32, for there the published models round.
    share = np.log(np.maximum(away, 1).astype(np.float32) / near) / np.float32(np.log(reach / near))
    far = near + (share * (half - near)).astype(np.int32)
    return np.where(distance > 0, half, 0) + np.where(away < near, away, np.minimum(far, half - 1))


def _norm(size: T5Size, dtype: Any, name: str) -> nn.RMSNorm:
    scale = nn.with_logical_partitioning(nn.initializers.ones, ("features",))
    return nn.RMSNorm(epsilon=size.epsilon, dtype=dtype, scale_init=scale, name=name)
