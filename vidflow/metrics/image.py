"""Measures of one image against another."""

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from vidflow.errors import UsageError

WINDOW = 11  # pixels of SSIM's windows


def psnr(a: UInt8[np.ndarray, "*B H W 3"], b: UInt8[np.ndarray, "*B H W 3"]) -> Float[np.ndarray, "*B"]:
    """Peak signal-to-noise ratio of each 8-bit image in dB, 10 log10(255^2 / MSE), 68.13 at most: an MSE below 0.01,
    such as that of equal images, counts as 0.01."""
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean(axis=(-3, -2, -1))
    return 10.0 * np.log10(255.0**2 / np.maximum(error, 0.01))


def ssim(a: UInt8[np.ndarray, "*B H W 3"], b: UInt8[np.ndarray, "*B H W 3"]) -> Float[np.ndarray, "*B"]:
    """Structural similarity of each 8-bit image (Wang et al. 2004): Gaussian windows of 11 x 11 (sigma 1.5) that lie
    inside the picture, K1 = 0.01, K2 = 0.03, each colour by itself, mean over windows and colours.

    Raises:
      UsageError: pictures smaller than a window.
    """
    if min(a.shape[-3:-1]) < WINDOW:
        size = f"{a.shape[-3]} x {a.shape[-2]}"
        raise UsageError(f"SSIM needs pictures of at least {WINDOW} x {WINDOW} pixels, not {size}: use larger ones.")
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    shared = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    similar = (2 * mean_x * mean_y + c1) * (2 * shared + c2)
    similar /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return similar.mean(axis=(-3, -2, -1))


def _blur(x: Float[np.ndarray, "*B H W 3"]) -> Float[np.ndarray, "*B h w 3"]:
    for axis in (-3, -2):
        x = ndimage.gaussian_filter1d(x, 1.5, axis=axis, radius=WINDOW // 2)
    edge = WINDOW // 2
    return x[..., edge:-edge, edge:-edge, :]
