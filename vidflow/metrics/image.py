"""Measures of one image against another."""

import numpy as np
from jaxtyping import Float, UInt8


def psnr(a: UInt8[np.ndarray, "*B H W 3"], b: UInt8[np.ndarray, "*B H W 3"]) -> Float[np.ndarray, "*B"]:
    """Peak signal-to-noise ratio of each 8-bit image in dB, 10 log10(255^2 / MSE); equal images count as MSE 0.01."""
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean(axis=(-3, -2, -1))
    return 10.0 * np.log10(255.0**2 / np.maximum(error, 0.01))
