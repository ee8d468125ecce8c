"""Causal 3D autoencoders: those of Wan 2.1 and HunyuanVideo, and what lies between them.

The first frame of a video is compressed in space alone, so 1 + 4 k frames become 1 + k latents and an image is a video
of one frame. Other lengths are padded by repeating the last frame and cropped after decoding. Where `norm` is not
"clip" and `attention` not "earlier", a video of any length goes through in constant memory: see `encode_chunk` and
`decode_all`.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from vidflow.autoencoders.causal_layers import CausalBlock, CausalConv, Down, FrameAttention, Norm, Up
from vidflow.autoencoders.latents import Compression, Posterior
from vidflow.autoencoders.layers import Features, Resized, fold, pointwise, unfold
from vidflow.typing import Latents, Video


class Layout(NamedTuple):
    """What tells these autoencoders apart. The defaults are Wan 2.1's.

    Attributes:
      widths: features of each level, from pixels inwards.
      strides: along time between consecutive levels of the encoder, so one fewer than `widths`; along space each is 2.
      up_strides: the same for the decoder, in the same order.
      blocks: residual blocks of a level in the encoder; the decoder has one more.
      channels: of the latents.
      patch: pixels folded into features along height and width before the first convolution; 1 in both.
      norm: of the features: "rms", "frames" or "clip"; see `Norm`.
      groups: of group normalisation; 0 for none of "frames" or "clip".
      edge: pad with the nearest frame and pixels, otherwise with zeros.
      jointly: change time and space in one convolution, otherwise one after the other.
      attention: of the innermost level, among the sites of a "frame", or of it and of "earlier" frames; "" for none.
    """

    widths: tuple[int, ...] = (96, 192, 384, 384)
    strides: tuple[int, ...] = (1, 2, 2)
    up_strides: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    channels: int = 16
    patch: int = 1
    norm: str = "rms"
    groups: int = 32
    edge: bool = False
    jointly: bool = False
    attention: str = "frame"


WAN = Layout()
HUNYUAN_VIDEO = Layout(
    widths=(128, 256, 512, 512), up_strides=(2, 2, 1), norm="clip", edge=True, jointly=True, attention="earlier"
)


class CausalAutoencoder(nn.Module):
    """See the methods `encode` and `decode`.

    Attributes:
      layout: of encoder and decoder.
      dtype: of the computation; parameters are float32.
    """

    layout: Layout = WAN
    dtype: Any = jnp.float32

    @property
    def compression(self) -> Compression:
        space = self.layout.patch * 2 ** len(self.layout.strides)
        return Compression(math.prod(self.layout.strides), space, space, self.layout.channels, first_alone=True)

    @property
    def last_kernel(self) -> tuple[str, ...]:
        """Where the kernel of the last layer is among the parameters."""
        return ("decoder", "out", "conv", "kernel")

    def setup(self) -> None:
        self.encoder = Encoder(self.layout, self.dtype)
        self.decoder = Decoder(self.layout, self.dtype)
        self.to_posterior = pointwise(2 * self.layout.channels, self.dtype)
        self.from_latents = pointwise(self.layout.channels, self.dtype)

    def encode(self, video: Video) -> Posterior:
        """Video in [-1, 1] -> Gaussian over latents [B, 1 + ceil((T - 1) / time), H / 8, W / 8, channels]."""
        missing = -(video.shape[1] - 1) % self.compression.time
        return self.encode_chunk(jnp.pad(video, ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0)), mode="edge"))

    def encode_chunk(self, video: Video) -> Posterior:
        """The same for the next frames of a video, when called with the collection "cache" mutable.

        The first chunk has 1 + k time frames, later ones k time; what `apply` gives back of "cache" goes into the next
        call.
        """
        y = self.to_posterior(self.encoder(fold(video, self.layout.patch).astype(self.dtype)))
        mean, logvar = jnp.split(y.astype(jnp.float32), 2, axis=-1)
        return Posterior(mean, jnp.clip(logvar, -30.0, 20.0))

    def decode(self, z: Latents, num_frames: int) -> Video:
        """Latents (as `encode` gives them, not normalised) -> the first `num_frames` frames, about [-1, 1]."""
        return self.decode_all(z)[:, :num_frames]

    def decode_all(self, z: Latents) -> Video:
        """All frames of the latents: 1 of the first, `time` of every other one.

        Called with the collection "cache" mutable, those of the next latents of a video, as in `encode_chunk`.
        """
        x = self.decoder(self.from_latents(z.astype(self.dtype))).astype(jnp.float32)
        return unfold(x, self.layout.patch)

    def __call__(self, video: Video) -> Video:
        """Reconstruction from the posterior mean."""
        return self.decode(self.encode(video).mean, video.shape[1])


class Encoder(nn.Module):
    """Pixels to features of twice the channels of the latents."""

    layout: Layout
    dtype: Any

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        layout, layers = self.layout, Layers(self.layout, self.dtype)
        x = layers.conv(layout.widths[0], "in")(x)
        for level, width in enumerate(layout.widths):
            for block in range(layout.blocks):
                x = layers.block(width, f"level_{level}_block_{block}")(x)
            if level < len(layout.strides):
                x = Down(layout.strides[level], layout.jointly, layout.edge, self.dtype, name=f"down_{level}")(x)
        x = layers.middle(x)
        return layers.conv(2 * layout.channels, "out")(nn.silu(layers.norm()(x)))


class Decoder(nn.Module):
    """Features of latents to pixels."""

    layout: Layout
    dtype: Any

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        layout, layers = self.layout, Layers(self.layout, self.dtype)
        x = layers.middle(layers.conv(layout.widths[-1], "in")(x))
        for level in reversed(range(len(layout.widths))):
            width = layout.widths[level]
            for block in range(layout.blocks + 1):
                x = layers.block(width, f"level_{level}_block_{block}")(x)
            if level:
                # Wan's halves the features on the way up; HunyuanVideo's leaves that to the next block.
                features, time = width if layout.jointly else width // 2, layout.up_strides[level - 1]
                x = Up(features, time, layout.jointly, layout.edge, self.dtype, name=f"up_{level}")(x)
        return layers.conv(3 * layout.patch**2, "out")(nn.silu(layers.norm()(x)))


class Layers(NamedTuple):
    """The layers that encoder and decoder share, made inside the module that calls."""

    layout: Layout
    dtype: Any

    def conv(self, features: int, name: str) -> CausalConv:
        return CausalConv(features, edge=self.layout.edge, dtype=self.dtype, name=name)

    def block(self, features: int, name: str) -> CausalBlock:
        layout = self.layout
        return CausalBlock(features, layout.norm, layout.groups, layout.edge, self.dtype, name=name)

    def norm(self) -> Norm:
        return Norm(self.layout.norm, self.layout.groups, name="out_norm")

    def middle(self, x: Features) -> Features:
        """The innermost stage: block, attention, block; nothing in a model without attention."""
        layout, width = self.layout, self.layout.widths[-1]
        if not layout.attention:
            return x
        x = self.block(width, "middle_1")(x)
        earlier = layout.attention == "earlier"
        x = FrameAttention(layout.norm, layout.groups, earlier, self.dtype, name="middle_attention")(x)
        return self.block(width, "middle_2")(x)
