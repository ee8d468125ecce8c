"""Convolutions of width 3 by half as many products: Winograd's F(4, 3) along the width of a picture.

Four neighbours y of a row follow from six of x and three taps g by six products, not twelve, y = A [(G g) * (B x)]
(Lavin and Gray 2016, arXiv:1509.09308, section 4), each of them a matrix product over features: taps along time are
stacked with the features that go in, taps along height with those that come out. XLA has fast matrix products on a CPU
but slower convolutions, so there this is about twice their speed on pictures of 32 pixels and more, and theirs on small
ones (benchmarks/RESULTS.md); other devices keep their own.
Results agree with the direct sum to about 2e-5 of their deviation; of numbers shorter than float32 the sums before and
after the products would lose too much, so they go the direct way.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

FEWEST = 64  # features; with fewer the sums around the products cost much of what they save, and compiling all of it

# Lavin and Gray's G, for interpolation at 0, 1, -1, 2, -2 and infinity; a row for each product.
TAPS = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float32) / np.float32(24)

Padded = Float[Array, "B _ _ _ C"]
Convolved = Float[Array, "B _ _ _ O"]


def gains(x: Padded, kernel: Float[Array, "_ _ _ C O"], strides: Sequence[int]) -> bool:
    """Whether this way is right for such a convolution and faster than another on a CPU."""
    wide = kernel.shape[2] == 3 and min(kernel.shape[3:]) >= FEWEST
    return wide and set(strides) == {1} and x.dtype == jnp.float32


def valid(x: Padded, kernel: Float[Array, "time height 3 C O"]) -> Convolved:
    """The convolution of features last, where the kernel (time, height, width, in, out) lies within x."""
    time, height, _, features, results = kernel.shape
    frames, rows, width = (size - taps + 1 for size, taps in zip(x.shape[1:4], kernel.shape, strict=False))
    tiles = -(-width // 4)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 4 * tiles + 4 - x.shape[3]), (0, 0)))
    taps = jnp.einsum("pw,thwio->ptiho", TAPS, kernel).reshape(6, time * features, height * results)
    products = []
    for plane, matrix in zip(_planes(x, tiles), taps, strict=True):
        stacked = jnp.concatenate([plane[:, t : t + frames] for t in range(time)], axis=-1)
        product = (stacked @ matrix).reshape(*stacked.shape[:-1], height, results)
        products.append(sum(product[:, :, h : h + rows, :, h] for h in range(height)))
    return _gathered(products)[..., :width, :]


def _planes(x: Padded, tiles: int) -> list[Float[Array, "B T H tiles C"]]:
    """B x: six numbers of each tile of four, which overlaps the next by two."""
    x = x.reshape(*x.shape[:3], tiles + 1, 4, x.shape[-1])
    a, b, c, d = (x[..., :tiles, place, :] for place in range(4))
    e, f = (x[..., 1:, place, :] for place in range(2))
    even, odd, wide_even, wide_odd = e - 4 * c, d - 4 * b, e - c, 2 * (d - b)
    return [4 * a - 5 * c + e, even + odd, even - odd, wide_even + wide_odd, wide_even - wide_odd, 4 * b - 5 * d + f]


def _gathered(products: list[Float[Array, "B T H tiles O"]]) -> Convolved:
    """A m: four neighbours of each tile, side by side."""
    a, b, c, d, e, f = products
    near, slope, far, wide = b + c, b - c, d + e, d - e
    y = jnp.stack([a + near + far, slope + 2 * wide, near + 4 * far, slope + 8 * wide + f], axis=4)
    return y.reshape(*y.shape[:3], -1, y.shape[-1])
