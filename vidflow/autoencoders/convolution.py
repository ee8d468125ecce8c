"""A convolution over time, height and width, by whichever way is fast on the device.

XLA's convolutions in three dimensions are slow on a CPU, and their gradients slower. There are three other ways, each
for a kind of layer (benchmarks/RESULTS.md). Of few features it is a convolution of pictures, where the neighbours of a
frame along time lie side by side among its features; of many that would take too much memory. Of many features to many
results it is Winograd's products, and to few results sums of shifted products. Other devices keep their own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.autoencoders import winograd

Video = Float[Array, "B _ _ _ C"]
Convolved = Float[Array, "B _ _ _ O"]
Kernel = Float[Array, "_ _ _ C O"]
Pads = Sequence[tuple[int, int]]  # zeros before and after, along time, height and width

FEW = 4  # features for a result, from which on results are few


def convolve(x: Video, kernel: Kernel, strides: Sequence[int], padding: Any, **settings: Any) -> Convolved:
    """`jax.lax.conv_general_dilated` over (time, height, width).

    Args:
      x: features last.
      kernel: (time, height, width, features in, features out).
      strides, padding, settings: of `jax.lax.conv_general_dilated`; for `flax.linen.Conv`.
    """
    direct = partial(jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **settings)
    dilated = any(set(settings[name]) != {1} for name in ("lhs_dilation", "rhs_dilation"))
    way = None if dilated else _way(x, kernel, strides)
    if way is None:
        return direct(x, kernel)

    def on_cpu(x: Video, kernel: Kernel) -> Convolved:
        named = isinstance(padding, str)
        pads = jax.lax.padtype_to_pads(x.shape[1:-1], kernel.shape[:3], strides, padding) if named else padding
        return way(x, kernel, pads)

    return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=direct)


def _way(x: Video, kernel: Kernel, strides: Sequence[int]) -> Callable[[Video, Kernel, Pads], Convolved] | None:
    """That is fast on a CPU; none is where XLA's is."""
    features, results = kernel.shape[3:]
    if features < winograd.FEWEST:
        return partial(_of_pictures, strides=strides)
    if winograd.gains(x, kernel, strides):
        return lambda x, kernel, pads: winograd.valid(_padded(x, pads), kernel)
    shifts = set(strides) == {1} and x.dtype == jnp.float32 and features >= FEW * results
    return _of_shifted_products if shifts else None


def _padded(x: Video, pads: Pads) -> Video:
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


def _of_shifted_products(x: Video, kernel: Kernel, pads: Pads) -> Convolved:
    """Each vector of features is multiplied with all taps at once; then products are added where they belong, along
    width, height and time."""
    *taps, features, _ = kernel.shape
    x = _padded(x, pads)
    y = x @ jnp.transpose(kernel, (3, 2, 1, 0, 4)).reshape(features, -1)
    for axis, count in ((3, taps[2]), (2, taps[1]), (1, taps[0])):
        y = y.reshape(*y.shape[:4], count, -1)
        size = y.shape[axis] - count + 1
        y = sum(jax.lax.slice_in_dim(y, tap, tap + size, axis=axis)[..., tap, :] for tap in range(count))
    return y


def _of_pictures(x: Video, kernel: Kernel, pads: Pads, strides: Sequence[int]) -> Convolved:
    """XLA pads height and width itself, for its convolutions of what others padded are five times as slow."""
    time, (stride, *strides) = kernel.shape[0], strides
    x = _padded(x, (pads[0], (0, 0), (0, 0)))
    frames = (x.shape[1] - time) // stride + 1
    neighbours = [x[:, tap : tap + (frames - 1) * stride + 1 : stride] for tap in range(time)]
    pictures = jnp.concatenate(neighbours, axis=-1).reshape(-1, *x.shape[2:4], time * x.shape[4])
    flat = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], -1, kernel.shape[4])
    y = jax.lax.conv_general_dilated(pictures, flat, strides, pads[1:], dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y.reshape(x.shape[0], frames, *y.shape[1:])
