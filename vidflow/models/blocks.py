"""The transformer block: full attention, text by cross-attention, a feed-forward, and norms that the time modulates."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from vidflow.attention.attend import attend
from vidflow.attention.mask import Mask
from vidflow.linear import linear, linear_init, linears
from vidflow.models.conditioning import modulation
from vidflow.models.design import MOVIE_GEN, Design
from vidflow.models.positions import rotate

Stream = Float[Array, "B N D"]
Vectors = tuple[Float[Array, "B _ D"], ...]  # shift and scale, and the gate of a design that has one; or none at all


@flax.struct.dataclass
class Told:
    """What every layer is told besides its input; what the design has no use for is None.

    Attributes:
      position: [B, N, D] to be added to the input.
      angle: [B, N, half] by which queries and keys are rotated.
      time: [B, M, D] embedded, for layers with a projection of their own; frame: [B, N] the frame of a token, where M
        counts frames.
      modulation: [B, M or N, vectors, D] projected for all layers.
      context, context_segment: [B, L, E], [B, L] what cross-attention reads.
    """

    position: Any = None
    angle: Any = None
    time: Any = None
    frame: Any = None
    modulation: Any = None
    context: Any = None
    context_segment: Any = None


class Block(nn.Module):
    """One layer, a map on the residual stream; with the design `MOVIE_GEN` that of Movie Gen, section 3.1.3.

    Attributes:
      packed: whether a row may hold several segments.
      padded: whether some tokens of the stream may be padding, as those of a text in context.
    """

    heads: int
    feed_forward: int
    design: Design = MOVIE_GEN
    kernel: str = "xla"
    strategy: str | None = None
    dtype: Any = jnp.float32
    packed: bool = False
    padded: bool = False

    @nn.compact
    def __call__(self, x: Stream, segment: Int[Array, "B N"], told: Told) -> tuple[Stream, None]:
        design = self.design
        of_attention, of_feed_forward = self._modulation(told, x.shape[-1])
        x = checkpoint_name(x, "block_input")
        if design.positions == "every":
            x = x + told.position
        modulated = bool(design.vectors)
        h = modulate(norm(design, self.dtype, "attention_norm", modulated), x, of_attention)
        h = self._attention(self.strategy, "attention")(h, None, segment, segment, told.angle)
        x = x + gated(h, of_attention)
        if design.attends_across:
            # Text may lie whole on every device, so nothing is exchanged; a new layer does not hear it yet.
            cross = self._attention(self.strategy and "local", "cross_attention", nn.initializers.zeros)
            h = norm(design, self.dtype, "cross_norm", modulated=False)(x)
            x = x + cross(h, told.context.astype(self.dtype), segment, told.context_segment, None)
        h = modulate(norm(design, self.dtype, "feed_forward_norm", modulated), x, of_feed_forward)
        x = x + gated(FeedForward(self.feed_forward, design, self.dtype, name="feed_forward")(h), of_feed_forward)
        return nn.with_logical_constraint(x, ("batch", "tokens", "features")), None

    def _modulation(self, told: Told, width: int) -> tuple[Vectors, Vectors]:
        """For attention and for the feed-forward."""
        count = self.design.vectors
        if not count:
            return (), ()
        if self.design.shared:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, (None, "features"))
            vectors = told.modulation + self.param("modulation", zeros, (count, width))
        else:
            vectors = modulation(told.time, count, self.dtype, "modulation", told.frame)
        each = tuple(jnp.moveaxis(vectors.astype(self.dtype), 2, 0))
        return each[: count // 2], each[count // 2 :]

    def _attention(self, strategy: str | None, name: str, out_init: Any = linear_init) -> "Attention":
        flags = (self.packed, self.padded)
        return Attention(self.heads, self.design, self.kernel, strategy, self.dtype, out_init, *flags, name=name)


class Attention(nn.Module):
    """Multi-head attention from x to `context`, or to itself."""

    heads: int
    design: Design
    kernel: str
    strategy: str | None
    dtype: Any
    out_init: Any = linear_init
    packed: bool = False
    padded: bool = False

    @nn.compact
    def __call__(
        self,
        x: Stream,
        context: Float[Array, "B M E"] | None,
        segment: Int[Array, "B N"],
        context_segment: Int[Array, "B M"],
        angle: Float[Array, "B N half"] | None,
    ) -> Stream:
        width, bias = x.shape[-1], self.design.bias
        inwards = (width, ("embed", "heads"), self.dtype)
        if context is None:
            q, k, v = linears(x, ("query", "key", "value"), *inwards, spread=True, bias=bias)
        else:
            q = linear(x, "query", *inwards, spread=True, bias=bias)
            k, v = linears(context, ("key", "value"), *inwards, bias=bias)
        q, k, v = (y.reshape(*y.shape[:2], self.heads, width // self.heads) for y in (q, k, v))
        if self.design.qk_norm:
            q, k = rms_norm(self.dtype, "query_norm")(q), rms_norm(self.dtype, "key_norm")(k)
        if angle is not None:
            q, k = rotate(q, angle), rotate(k, angle)
        mask = Mask(segment, context_segment, self._relation(context is None))
        label = "self_attention" if context is None else "cross_attention"
        h = attend(q, k, v, mask, kernel=self.kernel, strategy=self.strategy, label=label).reshape(x.shape)
        return linear(h, "out", width, ("heads", "embed"), self.dtype, self.out_init, spread=True, bias=bias)

    def _relation(self, to_itself: bool) -> str:
        """Padding of a video stands at its end; that of a text may stand between the tokens of its encoders."""
        return "same" if self.packed else "all" if to_itself and not self.padded else "real"


class FeedForward(nn.Module):
    """SwiGLU, down(silu(gate(x)) * up(x)) (Shazeer 2020), or down(gelu(up(x))) with the hyperbolic tangent's form."""

    features: int
    design: Design
    dtype: Any

    @nn.compact
    def __call__(self, x: Stream) -> Stream:
        inwards = (self.features, ("embed", "mlp"), self.dtype)
        if self.design.mlp == "swiglu":
            gate, up = linears(x, ("gate", "up"), *inwards, spread=True, bias=self.design.bias)
            h = nn.silu(gate) * up
        else:
            h = nn.gelu(linear(x, "up", *inwards, spread=True, bias=self.design.bias))
        outwards = (x.shape[-1], ("mlp", "embed"), self.dtype)
        return linear(h, "down", *outwards, spread=True, bias=self.design.bias)


def norm(design: Design, dtype: Any, name: str, modulated: bool) -> nn.Module:
    """Over the features, statistics in float32. A LayerNorm that time modulates has no scale and shift of its own."""
    if design.norm == "rms":
        return rms_norm(dtype, name)
    own, inits = not modulated, {}
    for init, value in (("scale_init", nn.initializers.ones), ("bias_init", nn.initializers.zeros)):
        inits[init] = nn.with_logical_partitioning(value, ("features",))
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, use_scale=own, use_bias=own, name=name, **inits)


def rms_norm(dtype: Any, name: str) -> nn.RMSNorm:
    """With a learned scale."""
    scale = nn.with_logical_partitioning(nn.initializers.ones, ("features",))
    return nn.RMSNorm(epsilon=1e-6, dtype=dtype, scale_init=scale, name=name)


def modulate(normalised: nn.Module, x: Stream, vectors: Vectors) -> Stream:
    """The norm of x, shifted and scaled around the identity."""
    x = normalised(x)
    return x * (1 + vectors[1]) + vectors[0] if vectors else x


def gated(x: Stream, vectors: Vectors) -> Stream:
    """Through the gate, if there is one."""
    return vectors[2] * x if len(vectors) == 3 else x
