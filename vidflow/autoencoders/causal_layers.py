"""Causal layers: what a frame becomes depends on it and on the frames before it, never on later ones.

So a video can go through them in chunks, in constant memory. Each layer that looks back keeps what the next chunk will
want in the collection "cache": a call that gives this collection and has it mutable goes on where the last one ended,
a call without it begins a video. A first chunk has one frame, or one and a multiple of the stride: the first frame of a
video is compressed in space alone.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vidflow.attention.attend import attend
from vidflow.attention.mask import ORDERS, Mask
from vidflow.autoencoders.convolution import convolve
from vidflow.autoencoders.layers import CONV_NAMES, Features, Resized, conv_init, upsample

TINY = 1e-12  # a norm below it divides as if it were this


class CausalConv(nn.Module):
    """A convolution over (time, height, width), padded before the first frame and on both sides of a picture.

    It starts as one of each frame by itself, as the kinds that are not causal do, which small models learn faster from.

    Attributes:
      features: of the result.
      kernel, stride: along (time, height, width); 3 with a stride of 2 halves, 1 leaves the size.
      edge: pad with the nearest frame and pixels; otherwise with zeros.
      shifted: with a stride in space, pad below and to the right only, as image autoencoders do.
    """

    features: int
    kernel: tuple[int, int, int] = (3, 3, 3)
    stride: tuple[int, int, int] = (1, 1, 1)
    edge: bool = False
    shifted: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        time, height, width = self.kernel
        x = with_past(self, x, frames=time - 1, keep=time - self.stride[0], edge=self.edge)
        before = 0 if self.shifted else 1
        pads = [(before * (size // 2), size // 2) for size in (height, width)]
        x = jnp.pad(x, ((0, 0), (0, 0), *pads, (0, 0)), mode="edge" if self.edge else "constant")
        return nn.Conv(
            self.features,
            self.kernel,
            strides=self.stride,
            padding="VALID",
            dtype=self.dtype,
            kernel_init=nn.with_logical_partitioning(_of_each_frame, (None, None, None, *CONV_NAMES)),
            conv_general_dilated=convolve,
            name="conv",
        )(x)


class Down(nn.Module):
    """Half the height and width, and with `time` 2 also the frames after the first, by convolution.

    Attributes:
      jointly: one convolution over time and space (HunyuanVideo); otherwise one over space, then one over time that
        leaves the first frame as it is (Wan).
    """

    time: int
    jointly: bool
    edge: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        width = x.shape[-1]
        if self.jointly:
            return CausalConv(width, stride=(self.time, 2, 2), edge=self.edge, dtype=self.dtype, name="joint")(x)
        x = CausalConv(width, (1, 3, 3), (1, 2, 2), self.edge, shifted=True, dtype=self.dtype, name="space")(x)
        if self.time == 1:
            return x
        first = x[:, : 0 if has_begun(self) else 1]
        mark_begun(self)
        return jnp.concatenate([first, TimeConv(width, self.time, dtype=self.dtype, name="time")(x)], axis=1)


class Up(nn.Module):
    """Twice the height and width, and with `time` 2 also the frames after the first.

    Attributes:
      features: of the result.
      jointly: repeat, then one convolution over time and space (HunyuanVideo); otherwise a convolution along time makes
        two frames of each after the first, which it does not see, then space is repeated and convolved (Wan).
    """

    features: int
    time: int
    jointly: bool
    edge: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        first, later = (x[:, :0], x) if has_begun(self) else (x[:, :1], x[:, 1:])
        mark_begun(self)
        if self.time > 1:
            later = upsample(later, self.time, 1) if self.jointly else self._doubled(later)
        x = upsample(jnp.concatenate([first, later], axis=1), 1, 2)
        kernel, name = ((3, 3, 3), "joint") if self.jointly else ((1, 3, 3), "space")
        return CausalConv(self.features, kernel, edge=self.edge, dtype=self.dtype, name=name)(x)

    def _doubled(self, x: Features) -> Resized:
        y = TimeConv(self.time * x.shape[-1], before=2, dtype=self.dtype, name="time")(x)
        return rearrange(y, "b t h w (n c) -> b (t n) h w c", n=self.time)


class TimeConv(nn.Module):
    """A convolution of width 3 along time, with `before` frames of zeros before the first: also of no frames at all.

    It starts as the identity on the latest frame, for each of the `features` / features of x frames that it makes.
    """

    features: int
    stride: int = 1
    before: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        x = with_past(self, x, frames=self.before, keep=3 - self.stride)
        init = nn.with_logical_partitioning(_of_the_latest_frame, (None, *CONV_NAMES))
        kernel = self.param("kernel", init, (3, x.shape[-1], self.features))
        bias = self.param("bias", nn.with_logical_partitioning(nn.initializers.zeros, ("mlp",)), (self.features,))
        neighbours = [x[:, place : x.shape[1] - 2 + place : self.stride] for place in range(3)]
        stacked = jnp.concatenate(neighbours, axis=-1).astype(self.dtype)
        return stacked @ kernel.reshape(-1, self.features).astype(self.dtype) + bias.astype(self.dtype)


class CausalBlock(nn.Module):
    """Two normalised causal convolutions and a skip."""

    features: int
    norm: str
    groups: int
    edge: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        h = x
        for part in (1, 2):
            h = nn.silu(Norm(self.norm, self.groups, name=f"norm_{part}")(h))
            h = CausalConv(self.features, edge=self.edge, dtype=self.dtype, name=f"conv_{part}")(h)
        if x.shape[-1] != self.features:
            x = CausalConv(self.features, (1, 1, 1), dtype=self.dtype, name="skip")(x)
        return x + h


def _of_each_frame(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """A kernel [time, height, width, in, out] that sees only the latest of its frames."""
    return jnp.zeros(shape, dtype).at[-1].set(conv_init(key, shape[1:], dtype))


def _of_the_latest_frame(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    _, width, features = shape
    return jnp.zeros(shape, dtype).at[-1].set(jnp.tile(jnp.eye(width, dtype=dtype), features // width))


class Norm(nn.Module):
    """Normalisation, statistics in float32.

    Attributes:
      kind: "rms" divides each vector of features by its root mean square (Wan); "frames" is group normalisation of each
        frame by itself; "clip" that of all frames together (HunyuanVideo), with which no layer is causal in the strict
        sense and a video cannot go through in chunks.
      groups: of group normalisation; 0 for no normalisation.
    """

    kind: str
    groups: int = 32

    @nn.compact
    def __call__(self, x: Features) -> Features:
        if self.kind == "rms":
            scale = self.param("scale", nn.with_logical_partitioning(nn.initializers.ones, (None,)), (x.shape[-1],))
            y = x.astype(jnp.float32)
            length = jnp.sqrt(jnp.square(y).sum(axis=-1, keepdims=True))
            return (y / jnp.maximum(length, TINY) * x.shape[-1] ** 0.5 * scale).astype(x.dtype)
        if self.groups == 0:
            return x
        norm = nn.GroupNorm(num_groups=self.groups, epsilon=1e-6, dtype=x.dtype, name="group")
        if self.kind == "clip":
            return norm(x)
        return norm(x.reshape(-1, *x.shape[2:])).reshape(x.shape)


class FrameAttention(nn.Module):
    """Single-head attention among the sites of a frame, or with `earlier` also with those of the frames before it."""

    norm: str
    groups: int
    earlier: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Features:
        _, frames, height, width, features = x.shape
        fold = "b (t h w) c" if self.earlier else "(b t) (h w) c"
        h = rearrange(Norm(self.norm, self.groups, name="norm")(x), f"b t h w c -> {fold}")
        q, k, v = (self._dense(features, name)(h)[:, :, None] for name in ("query", "key", "value"))
        mask = _frame_order(x) if self.earlier else None
        h = self._dense(features, "output")(attend(q, k, v, mask)[:, :, 0])
        return x + rearrange(h, f"{fold} -> b t h w c", t=frames, h=height, w=width)

    def _dense(self, features: int, name: str) -> nn.Dense:
        init = nn.with_logical_partitioning(conv_init, CONV_NAMES)
        return nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)


def _frame_order(x: Features) -> Mask:
    """Every site sees the frames that are not later than its own."""
    batch, frames, height, width, _ = x.shape
    order = jnp.broadcast_to(jnp.repeat(ORDERS + jnp.arange(frames), height * width), (batch, frames * height * width))
    return Mask(order, order, relation="earlier")


# Chunks


def with_past(module: nn.Module, x: Features, *, frames: int, keep: int, edge: bool = False) -> Resized:
    """`x` behind the frames that the last chunk kept, or at the beginning behind `frames` of padding.

    Args:
      keep: how many of the last frames the next chunk will want.
      edge: pad with copies of the first frame; otherwise with zeros.
    """
    if module.has_variable("cache", "past"):
        past = module.get_variable("cache", "past")
    elif edge:
        past = jnp.repeat(x[:, :1], frames, axis=1)
    else:
        past = jnp.zeros((x.shape[0], frames, *x.shape[2:]), x.dtype)
    x = jnp.concatenate([past, x], axis=1)
    if keep and _is_streaming(module):
        module.put_variable("cache", "past", x[:, x.shape[1] - keep :])
    return x


def has_begun(module: nn.Module) -> bool:
    """Whether a chunk has gone through this layer before."""
    return module.has_variable("cache", "begun")


def mark_begun(module: nn.Module) -> None:
    """Says so to the next chunk."""
    if _is_streaming(module):
        module.put_variable("cache", "begun", jnp.zeros(()))


def _is_streaming(module: nn.Module) -> bool:
    return module.is_mutable_collection("cache") and not module.is_initializing()
