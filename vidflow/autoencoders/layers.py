"""The 2.5D layers of Movie Gen's temporal autoencoder (section 3.1.1): an image layer, then its temporal twin.

Frames are folded into the batch for everything spatial; everything temporal acts on the frames of one site. Temporal
padding repeats the edge frame on both sides, so any number of frames, one included, goes through the same weights.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from vidflow.attention.attend import attend
from vidflow.autoencoders.convolution import convolve

Features = Float[Array, "B T H W C"]
Resized = Float[Array, "B _ _ _ _"]  # features after a layer that may change their number or the strides

conv_init = nn.initializers.lecun_normal()
CONV_NAMES = ("embed", "mlp")


class SpatialConv(nn.Module):
    """A convolution of each frame, with zero padding; `stride` 2 halves height and width."""

    features: int
    kernel: int = 3
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        edge = self.kernel // 2
        # A stride of 2 pads below and to the right only, as image autoencoders do, to keep the size exactly half.
        pad = (edge, edge) if self.stride == 1 else (self.kernel - self.stride - edge, edge)
        init = nn.with_logical_partitioning(conv_init, (None, None, *CONV_NAMES))
        y = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding=[pad, pad],
            dtype=self.dtype,
            kernel_init=init,
            name="conv",
        )(x.reshape(-1, *x.shape[2:]))
        return y.reshape(*x.shape[:2], *y.shape[1:])


class TemporalConv(nn.Module):
    """A width-3 convolution along time with edge padding; `stride` 2 keeps ceil(T / 2) frames.

    It starts as the identity on the centre frame, so a new layer leaves the image model under it unchanged.
    """

    features: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        channels, frames = x.shape[-1], x.shape[1]

        def centre_identity(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            return jnp.zeros(shape, dtype).at[1].set(jnp.eye(channels, self.features, dtype=dtype))

        kernel = self.param(
            "kernel", nn.with_logical_partitioning(centre_identity, (None, *CONV_NAMES)), (3, channels, self.features)
        )
        bias = self.param("bias", nn.with_logical_partitioning(nn.initializers.zeros, ("mlp",)), (self.features,))
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)), mode="edge")
        # As one matrix product over the three neighbours: several times faster than a 3D convolution on a CPU.
        neighbours = [padded[:, offset : offset + frames : self.stride] for offset in range(3)]
        stacked = jnp.concatenate(neighbours, axis=-1).astype(self.dtype)
        return stacked @ kernel.reshape(-1, self.features).astype(self.dtype) + bias.astype(self.dtype)


class SpacetimeConv(nn.Module):
    """A 3 x 3 x 3 convolution with zero padding of pictures and edge padding of time; strides as in 2.5D.

    It starts as a convolution of the centre frame alone, as the 2.5D one does.
    """

    features: int
    time_stride: int = 1
    space_stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        def centre_image(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            return jnp.zeros(shape, dtype).at[1].set(conv_init(key, shape[1:], dtype))

        edge = 1 if self.space_stride == 1 else 0
        x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)), mode="edge")
        return nn.Conv(
            self.features,
            (3, 3, 3),
            strides=(self.time_stride, self.space_stride, self.space_stride),
            padding=[(0, 0), (edge, 1), (edge, 1)],
            dtype=self.dtype,
            kernel_init=nn.with_logical_partitioning(centre_image, (None, None, None, *CONV_NAMES)),
            conv_general_dilated=convolve,
            name="conv",
        )(x)


class Conv(nn.Module):
    """A convolution over time and space: a spatial one followed by a temporal one ("2.5d"), or both in one ("3d")."""

    features: int
    time_stride: int = 1
    space_stride: int = 1
    kind: str = "2.5d"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        if self.kind == "3d":
            return SpacetimeConv(self.features, self.time_stride, self.space_stride, self.dtype, name="spacetime")(x)
        x = SpatialConv(self.features, stride=self.space_stride, dtype=self.dtype, name="spatial")(x)
        return TemporalConv(self.features, self.time_stride, self.dtype, name="temporal")(x)


def pointwise(features: int, dtype: Any = jnp.float32) -> nn.Dense:
    """A convolution of width 1."""
    return nn.Dense(features, dtype=dtype, kernel_init=nn.with_logical_partitioning(conv_init, CONV_NAMES))


class ResBlock(nn.Module):
    """Two normalised convolutions and a skip (the block of latent diffusion's autoencoder, Rombach et al. 2022)."""

    features: int
    groups: int
    kind: str = "2.5d"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        h = x
        for part in (1, 2):
            h = nn.silu(group_norm(h, self.groups, f"norm_{part}"))
            h = Conv(self.features, kind=self.kind, dtype=self.dtype, name=f"conv_{part}")(h)
        if x.shape[-1] != self.features:
            x = SpatialConv(self.features, kernel=1, dtype=self.dtype, name="skip")(x)
        return x + h


class AxialAttention(nn.Module):
    """Single-head attention over the sites of each frame, then over the frames of each site."""

    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Features:
        batch, frames, height, width, _ = x.shape
        h = rearrange(group_norm(x, self.groups, "space_norm"), "b t h w c -> (b t) (h w) c")
        h = self._attention(h, conv_init, "space")
        x = x + rearrange(h, "(b t) (h w) c -> b t h w c", b=batch, t=frames, h=height, w=width)
        h = rearrange(group_norm(x, self.groups, "time_norm"), "b t h w c -> (b h w) t c")
        h = self._attention(h, nn.initializers.zeros, "time")  # zero: a new temporal layer changes nothing
        return x + rearrange(h, "(b h w) t c -> b t h w c", b=batch, h=height, w=width)

    def _attention(
        self, x: Float[Array, "B N C"], out_init: nn.initializers.Initializer, name: str
    ) -> Float[Array, "B N C"]:
        def dense(y: Array, part: str, init: nn.initializers.Initializer = conv_init) -> Float[Array, "B N C"]:
            init = nn.with_logical_partitioning(init, CONV_NAMES)
            return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name=f"{name}_{part}")(y)

        q, k, v = (dense(x, part)[:, :, None] for part in ("query", "key", "value"))
        return dense(attend(q, k, v)[:, :, 0], "out", out_init)


def group_norm(x: Features, groups: int, name: str) -> Features:
    """Group normalisation of each frame by itself, statistics in float32; no normalisation for 0 groups."""
    if groups == 0:
        return x
    y = nn.GroupNorm(num_groups=groups, epsilon=1e-6, dtype=x.dtype, name=name)(x.reshape(-1, *x.shape[2:]))
    return y.reshape(x.shape)


def upsample(x: Features, time: int, space: int) -> Resized:
    """Repeat frames and pixels."""
    for axis, factor in ((1, time), (2, space), (3, space)):
        x = jnp.repeat(x, factor, axis=axis) if factor > 1 else x
    return x


def fold(x: Features, patch: int) -> Resized:
    """Squares of `patch` pixels become features of one site."""
    return rearrange(x, "b t (h i) (w j) c -> b t h w (i j c)", i=patch, j=patch)


def unfold(x: Features, patch: int) -> Resized:
    """The inverse of `fold`."""
    return rearrange(x, "b t h w (i j c) -> b t (h i) (w j) c", i=patch, j=patch)
