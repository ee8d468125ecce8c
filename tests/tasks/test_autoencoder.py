"""What a trained autoencoder is told of its latents."""


import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.autoencoders.latents import Compression, Posterior
from vidflow.data import sources
from vidflow.tasks import autoencoder


class Brightness:
    """A module whose latents are the pixels; it notes how many clips it is given."""

    compression = Compression(1, 1, 1, 3)

    def __init__(self):
        self.rows = []

    def apply(self, params, video, method):
        self.rows.append(len(video))
        return Posterior(video, video)


def clips(values):
    return [{"video": np.full((2, 4, 4, 3), value, np.uint8)} for value in values]


def test_large_clips_are_few_at_a_time(monkeypatch):
    """The batch of training is spread over a mesh; statistics are measured on one device."""
    source = clips([0, 255, 0, 255, 255])
    found = []
    for pixels, rows in ((2**24, [4, 1]), (2 * 2 * 4 * 4, [2, 1]), (1, [1])):
        module = Brightness()
        monkeypatch.setattr(sources, "PIXELS", pixels)
        found.append(autoencoder.measure_statistics(module, {}, source, batch_size=4))
        assert module.rows == rows  # traced once for each size
    assert found[0] == found[1] == found[2]
    assert found[0].mean == pytest.approx([0.2] * 3) and found[0].std == pytest.approx([0.96**0.5] * 3)


def test_clips_of_a_folder_are_of_all_its_videos(monkeypatch):
    """Clips stand in the order of their files: the first of them would be of one video."""
    monkeypatch.setattr(autoencoder, "STATISTICS_CLIPS", 4)
    source = clips([0] * 8 + [255] * 8)
    first, spread = (autoencoder.measure_statistics(Brightness(), {}, source, 4, spread) for spread in (False, True))
    assert first.mean == pytest.approx([-1] * 3) and spread.mean == pytest.approx([0] * 3)
    assert jnp.isfinite(jnp.array(first.std)).all()
