"""The temporal autoencoder of Movie Gen (section 3.1.1): 2.5D, not causal, any number of frames.

Encoding rounds the number of frames up at every temporal stride; decoding gives stride times as many frames as
latents, and the frames beyond those asked for are dropped. An image is a video of one frame.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.autoencoders.latents import Compression, Posterior
from vidflow.autoencoders.layers import (
    CONV_NAMES,
    AxialAttention,
    Conv,
    Features,
    ResBlock,
    Resized,
    fold,
    group_norm,
    pointwise,
    unfold,
    upsample,
)
from vidflow.errors import UsageError
from vidflow.typing import Latents, Video

Hints = list[Float[Array, "B 1 _ _ _"]]  # features of the first frame, level by level


class TemporalAutoencoder(nn.Module):
    """See the methods `encode` and `decode`.

    Attributes:
      widths: features of each level, from pixels inwards.
      strides: (time, space) stride between consecutive levels, so one fewer than `widths`.
      blocks: residual blocks of a level in the encoder; the decoder has one more.
      channels: of the latents.
      patch: pixels folded into features along height and width before the first convolution; 1 in the paper.
      attention: axial attention in the innermost level.
      groups: of the normalisation; 0 for none, with which small models on flat colours learn faster.
      kind: of the convolutions: "2.5d" (of each frame, then along time; the paper's) or "3d" (of both at once).
      narrow: the convolution after each upsampling already has the features of the next level, which costs less;
        otherwise those of its own, as in image autoencoders.
      pointwise: a convolution of width 1 on either side of the latents, as some image autoencoders have.
      hinted: the decoder may be shown the first frame beside the latents, as for image to video (H3AE).
      dtype: of the computation; parameters are float32.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512)
    strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 2), (2, 2))
    blocks: int = 2
    channels: int = 16
    patch: int = 1
    attention: bool = True
    groups: int = 32
    kind: str = "2.5d"
    narrow: bool = False
    pointwise: bool = False
    hinted: bool = False
    dtype: Any = jnp.float32

    @property
    def compression(self) -> Compression:
        time = math.prod(t for t, _ in self.strides)
        space = self.patch * math.prod(s for _, s in self.strides)
        return Compression(time, space, space, self.channels)

    @property
    def last_kernel(self) -> tuple[str, ...]:
        """Where the kernel of the last layer is among the parameters."""
        inner = ("spacetime", "conv") if self.kind == "3d" else ("temporal",)
        return ("decoder", "out", *inner, "kernel")

    def setup(self) -> None:
        make = Layers(self.kind, self.groups, self.dtype)
        self.encoder = Encoder(self.widths, self.strides, self.blocks, 2 * self.channels, self.attention, make)
        features = 3 * self.patch**2
        self.decoder = Decoder(self.widths, self.strides, self.blocks, features, self.attention, self.narrow, make)
        if self.pointwise:
            self.to_posterior = pointwise(2 * self.channels, self.dtype)
            self.from_latents = pointwise(self.channels, self.dtype)

    def encode(self, video: Video) -> Posterior:
        """Video in [-1, 1] -> Gaussian over latents [B, ceil(T / time), H / height, W / width, channels]."""
        x, _ = self.encoder(fold(video, self.patch).astype(self.dtype))
        x = self.to_posterior(x) if self.pointwise else x
        mean, logvar = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        return Posterior(mean, jnp.clip(logvar, -30.0, 20.0))

    def hints(self, first: Video) -> Hints:
        """What the decoder can be told of the first frame [B, 1, H, W, 3]: the encoder's features of each level.

        Raises:
          UsageError: a model that was not made for it.
        """
        if not self.hinted:
            raise UsageError(
                "This autoencoder's decoder cannot be shown a frame: train one with config.model.hinted=true."
            )
        return self.encoder(fold(first, self.patch).astype(self.dtype))[1]

    def decode(self, z: Latents, num_frames: int, hints: Hints | None = None) -> Video:
        """Latents (as `encode` gives them, not normalised) -> the first `num_frames` frames, about [-1, 1]."""
        return self.decode_all(z, hints)[:, :num_frames]

    def decode_all(self, z: Latents, hints: Hints | None = None) -> Video:
        """All frames of the latents: `compression.time` of each."""
        z = self.from_latents(z.astype(self.dtype)) if self.pointwise else z.astype(self.dtype)
        x = self.decoder(z, hints).astype(jnp.float32)
        return unfold(x, self.patch)

    def __call__(self, video: Video) -> Video:
        """Reconstruction from the posterior mean, with hints where the model takes them."""
        hints = self.hints(video[:, :1]) if self.hinted else None
        return self.decode(self.encode(video).mean, video.shape[1], hints)


class Layers(NamedTuple):
    """How the parts of encoder and decoder are made."""

    kind: str
    groups: int
    dtype: Any

    def conv(self, features: int, name: str, time: int = 1, space: int = 1) -> Conv:
        return Conv(features, time_stride=time, space_stride=space, kind=self.kind, dtype=self.dtype, name=name)

    def block(self, features: int, name: str) -> ResBlock:
        return ResBlock(features, self.groups, self.kind, self.dtype, name=name)

    def hint(self, features: int, name: str) -> nn.Dense:
        """Zero at first: a model that learns to take hints starts out as it was. Without a bias, so that hints of
        zeros, which training gives to the clips that show no frame, are no hints."""
        init = nn.with_logical_partitioning(nn.initializers.zeros, CONV_NAMES)
        return nn.Dense(features, use_bias=False, dtype=self.dtype, kernel_init=init, name=name)

    def middle(self, x: Features, attention: bool) -> Features:
        """The innermost stage: block, attention, block; nothing in a model without attention."""
        if not attention:
            return x
        x = self.block(x.shape[-1], "middle_1")(x)
        x = AxialAttention(self.groups, self.dtype, name="middle_attention")(x)
        return self.block(x.shape[-1], "middle_2")(x)


class Encoder(nn.Module):
    widths: tuple[int, ...]
    strides: tuple[tuple[int, int], ...]
    blocks: int
    features: int
    attention: bool
    make: Layers

    @nn.compact
    def __call__(self, x: Features) -> tuple[Resized, list[Resized]]:
        """The result, and the features of every level."""
        levels = []
        x = self.make.conv(self.widths[0], "in")(x)
        for level, width in enumerate(self.widths):
            if level:
                x = self.make.conv(self.widths[level - 1], f"down_{level}", *self.strides[level - 1])(x)
            for block in range(self.blocks):
                x = self.make.block(width, f"level_{level}_block_{block}")(x)
            levels.append(x)
        x = self.make.middle(x, self.attention)
        x = nn.silu(group_norm(x, self.make.groups, "norm"))
        return self.make.conv(self.features, "out")(x), levels


class Decoder(nn.Module):
    widths: tuple[int, ...]
    strides: tuple[tuple[int, int], ...]
    blocks: int
    features: int
    attention: bool
    narrow: bool
    make: Layers

    @nn.compact
    def __call__(self, x: Latents, hints: Hints | None = None) -> Resized:
        x = self.make.conv(self.widths[-1], "in")(x)
        x = self.make.middle(x, self.attention)
        for level in reversed(range(len(self.widths))):
            for block in range(self.blocks + 1):
                x = self.make.block(self.widths[level], f"level_{level}_block_{block}")(x)
            if hints is not None:
                x += self.make.hint(x.shape[-1], f"hint_{level}")(hints[level])
            if level:
                x = upsample(x, *self.strides[level - 1])
                x = self.make.conv(self.widths[level - 1 if self.narrow else level], f"up_{level}")(x)
        x = nn.silu(group_norm(x, self.make.groups, "norm"))
        return self.make.conv(self.features, "out")(x)
