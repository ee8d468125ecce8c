"""A convolution over time, height and width, by whichever way is fast on the device.

XLA's convolutions in three dimensions are slow on a CPU, and their gradients slower. Of few features there it is one of
pictures: the neighbours of a frame along time lie side by side among its features, which is 3 to 15 times as fast in
training (benchmarks/RESULTS.md). Of many that would take too much memory, and Winograd's way is fast where it is right.
Other devices keep their own.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.autoencoders import winograd

Padded = Float[Array, "B _ _ _ C"]
Convolved = Float[Array, "B _ _ _ O"]
Kernel = Float[Array, "_ _ _ C O"]


def convolve(x: Padded, kernel: Kernel, strides: Sequence[int], padding: Any, **settings: Any) -> Convolved:
    """`jax.lax.conv_general_dilated` over (time, height, width).

    Args:
      x: features last.
      kernel: (time, height, width, features in, features out).
      strides, padding, settings: of `jax.lax.conv_general_dilated`; for `flax.linen.Conv`.
    """
    direct = partial(jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **settings)
    dilated = any(set(settings[name]) != {1} for name in ("lhs_dilation", "rhs_dilation"))
    by_products = winograd.gains(x, kernel, strides)
    if dilated or not (by_products or x.shape[-1] < winograd.FEWEST):
        return direct(x, kernel)

    def on_cpu(x: Padded, kernel: Kernel) -> Convolved:
        named = isinstance(padding, str)
        pads = jax.lax.padtype_to_pads(x.shape[1:-1], kernel.shape[:3], strides, padding) if named else padding
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        return winograd.valid(x, kernel) if by_products else _of_pictures(x, kernel, strides)

    return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=direct)


def _of_pictures(x: Padded, kernel: Kernel, strides: Sequence[int]) -> Convolved:
    """Where the kernel lies within x."""
    time, (stride, *strides) = kernel.shape[0], strides
    frames = (x.shape[1] - time) // stride + 1
    neighbours = [x[:, tap : tap + (frames - 1) * stride + 1 : stride] for tap in range(time)]
    pictures = jnp.concatenate(neighbours, axis=-1).reshape(-1, *x.shape[2:4], time * x.shape[4])
    flat = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], -1, kernel.shape[4])
    y = jax.lax.conv_general_dilated(pictures, flat, strides, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y.reshape(x.shape[0], frames, *y.shape[1:])
