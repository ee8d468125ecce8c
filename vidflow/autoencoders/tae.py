"""The temporal autoencoder of Movie Gen (section 3.1.1): 2.5D, not causal, any number of frames.

Encoding rounds the number of frames up at every temporal stride; decoding gives stride times as many frames as
latents, and the frames beyond those asked for are dropped. An image is a video of one frame.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from vidflow.autoencoders.latents import Compression, Posterior
from vidflow.autoencoders.layers import AxialAttention, Conv, Features, ResBlock, Resized, group_norm, upsample
from vidflow.typing import Latents, Video


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
      dtype: of the computation; parameters are float32.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512)
    strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 2), (2, 2))
    blocks: int = 2
    channels: int = 16
    patch: int = 1
    attention: bool = True
    groups: int = 32
    dtype: Any = jnp.float32

    @property
    def compression(self) -> Compression:
        time = math.prod(t for t, _ in self.strides)
        space = self.patch * math.prod(s for _, s in self.strides)
        return Compression(time, space, space, self.channels)

    def setup(self) -> None:
        self.encoder = Encoder(
            self.widths, self.strides, self.blocks, self.channels, self.attention, self.groups, self.dtype
        )
        self.decoder = Decoder(
            self.widths, self.strides, self.blocks, 3 * self.patch**2, self.attention, self.groups, self.dtype
        )

    def encode(self, video: Video) -> Posterior:
        """Video in [-1, 1] -> Gaussian over latents [B, ceil(T / time), H / height, W / width, channels]."""
        x = rearrange(video, "b t (h i) (w j) c -> b t h w (i j c)", i=self.patch, j=self.patch)
        mean, logvar = jnp.split(self.encoder(x.astype(self.dtype)).astype(jnp.float32), 2, axis=-1)
        return Posterior(mean, jnp.clip(logvar, -30.0, 20.0))

    def decode(self, z: Latents, num_frames: int) -> Video:
        """Latents (as `encode` gives them, not normalised) -> the first `num_frames` frames, about [-1, 1]."""
        x = self.decoder(z.astype(self.dtype)).astype(jnp.float32)
        x = rearrange(x, "b t h w (i j c) -> b t (h i) (w j) c", i=self.patch, j=self.patch)
        return x[:, :num_frames]

    def __call__(self, video: Video) -> Video:
        """Reconstruction from the posterior mean."""
        return self.decode(self.encode(video).mean, video.shape[1])


class Encoder(nn.Module):
    widths: tuple[int, ...]
    strides: tuple[tuple[int, int], ...]
    blocks: int
    channels: int
    attention: bool
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        x = Conv(self.widths[0], dtype=self.dtype, name="in")(x)
        for level, width in enumerate(self.widths):
            if level:
                time, space = self.strides[level - 1]
                x = Conv(
                    self.widths[level - 1],
                    time_stride=time,
                    space_stride=space,
                    dtype=self.dtype,
                    name=f"down_{level}",
                )(x)
            for block in range(self.blocks):
                x = ResBlock(width, self.groups, self.dtype, name=f"level_{level}_block_{block}")(x)
        x = _middle(x, self.attention, self.groups, self.dtype)
        x = nn.silu(group_norm(x, self.groups, "norm"))
        return Conv(2 * self.channels, dtype=self.dtype, name="out")(x)


class Decoder(nn.Module):
    widths: tuple[int, ...]
    strides: tuple[tuple[int, int], ...]
    blocks: int
    features: int
    attention: bool
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Latents) -> Resized:
        x = Conv(self.widths[-1], dtype=self.dtype, name="in")(x)
        x = _middle(x, self.attention, self.groups, self.dtype)
        for level in reversed(range(len(self.widths))):
            for block in range(self.blocks + 1):
                x = ResBlock(self.widths[level], self.groups, self.dtype, name=f"level_{level}_block_{block}")(x)
            if level:
                x = upsample(x, *self.strides[level - 1])
                x = Conv(self.widths[level - 1], dtype=self.dtype, name=f"up_{level}")(x)
        x = nn.silu(group_norm(x, self.groups, "norm"))
        return Conv(self.features, dtype=self.dtype, name="out")(x)


def _middle(x: Features, attention: bool, groups: int, dtype: Any) -> Features:
    """The innermost stage: block, attention, block; nothing in a model without attention."""
    if not attention:
        return x
    width = x.shape[-1]
    x = ResBlock(width, groups, dtype, name="middle_1")(x)
    x = AxialAttention(groups, dtype, name="middle_attention")(x)
    return ResBlock(width, groups, dtype, name="middle_2")(x)
