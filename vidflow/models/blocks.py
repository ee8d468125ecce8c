"""The Movie Gen transformer block: Llama's parts, full attention, text by cross-attention, adaptive norms."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from vidflow.attention.attend import attend
from vidflow.attention.mask import Mask
from vidflow.linear import linear, linear_init, linears
from vidflow.models.conditioning import Conditioning

Stream = Float[Array, "B N D"]


class Block(nn.Module):
    """One layer, a map on the residual stream (Movie Gen, section 3.1.3).

    The six modulation vectors (shift, scale, gate for attention and for the feed-forward) are one projection of the
    time embedding shared by all layers plus a table of this layer. Gates and the output of cross-attention start
    at zero, so a new stack is the identity (adaLN-Zero, Peebles and Xie 2023). Linear layers have no bias.
    """

    heads: int
    feed_forward: int
    kernel: str = "xla"
    strategy: str | None = None
    dtype: Any = jnp.float32
    packed: bool = False

    @nn.compact
    def __call__(
        self,
        x: Stream,
        segment: Int[Array, "B N"],
        position: Stream,
        modulation: Float[Array, "B M six D"],
        conditioning: Conditioning,
    ) -> tuple[Stream, None]:
        width = x.shape[-1]
        table = self.param(
            "modulation",
            nn.with_logical_partitioning(nn.initializers.zeros, (None, "features")),
            (6, width),
        )
        # [B, M, 6, D], M = 1 for one time per video or N for one per frame -> six arrays [B, M, D].
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = jnp.moveaxis(
            (modulation + table).astype(self.dtype), 2, 0
        )
        x = checkpoint_name(x, "block_input") + position
        h = modulate(norm(self.dtype, "attention_norm")(x), shift_a, scale_a)
        x = x + gate_a * self._attention(self.strategy, "attention")(h, None, segment, segment)
        h = norm(self.dtype, "cross_norm")(x)
        text = conditioning.text.astype(self.dtype)
        cross = self._attention(self.strategy and "local", "cross_attention", nn.initializers.zeros)
        x = x + cross(h, text, segment, conditioning.text_segment)
        h = modulate(norm(self.dtype, "feed_forward_norm")(x), shift_f, scale_f)
        x = x + gate_f * FeedForward(self.feed_forward, self.dtype, name="feed_forward")(h)
        return nn.with_logical_constraint(x, ("batch", "tokens", "features")), None

    def _attention(self, strategy: str | None, name: str, out_init: Any = linear_init) -> "Attention":
        return Attention(self.heads, self.kernel, strategy, self.dtype, out_init, self.packed, name=name)


class Attention(nn.Module):
    """Multi-head attention from x to `context`, or to itself."""

    heads: int
    kernel: str
    strategy: str | None
    dtype: Any
    out_init: Any = linear_init
    packed: bool = False

    @nn.compact
    def __call__(
        self,
        x: Stream,
        context: Float[Array, "B M E"] | None,
        segment: Int[Array, "B N"],
        context_segment: Int[Array, "B M"],
    ) -> Stream:
        width = x.shape[-1]
        inwards = (width, ("embed", "heads"), self.dtype)
        if context is None:
            q, k, v = linears(x, ("query", "key", "value"), *inwards, spread=True)
        else:
            q = linear(x, "query", *inwards, spread=True)
            k, v = linears(context, ("key", "value"), *inwards)
        q, k, v = (y.reshape(*y.shape[:2], self.heads, width // self.heads) for y in (q, k, v))
        # Padding of a video stands at its end; that of a text may stand between the tokens of its encoders.
        relation = "same" if self.packed else "all" if context is None else "real"
        mask = Mask(segment, context_segment, relation)
        label = "self_attention" if context is None else "cross_attention"
        h = attend(q, k, v, mask, kernel=self.kernel, strategy=self.strategy, label=label).reshape(x.shape)
        return linear(h, "out", width, ("heads", "embed"), self.dtype, self.out_init, spread=True)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Stream) -> Stream:
        gate, up = linears(x, ("gate", "up"), self.features, ("embed", "mlp"), self.dtype, spread=True)
        return linear(nn.silu(gate) * up, "down", x.shape[-1], ("mlp", "embed"), self.dtype, spread=True)


def norm(dtype: Any, name: str) -> nn.RMSNorm:
    """RMSNorm over the features; statistics in float32."""
    scale = nn.with_logical_partitioning(nn.initializers.ones, ("features",))
    return nn.RMSNorm(epsilon=1e-6, dtype=dtype, scale_init=scale, name=name)


def modulate(x: Stream, shift: Float[Array, "B M D"], scale: Float[Array, "B M D"]) -> Stream:
    """Shift and scale around the identity; M is 1 or N."""
    return x * (1 + scale) + shift
