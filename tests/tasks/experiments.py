"""The experiments that the tests of this folder run."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT_TO_VIDEO = f"{ROOT}/experiments/bounce/text_to_video.py:smoke"
AUTOENCODER = f"{ROOT}/experiments/bounce/autoencoder.py:smoke"
