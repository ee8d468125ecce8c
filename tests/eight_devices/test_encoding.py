"""A cache encoded by several devices is that of one."""

import jax
import numpy as np

from tests.tasks.experiments import AUTOENCODER
from vidflow import config as configs
from vidflow.autoencoders.latents import Statistics
from vidflow.data.latents_cache import LatentsSource
from vidflow.parallel import rules
from vidflow.tasks import encoding, frozen_autoencoder


def test_devices_share_a_batch(tmp_path, monkeypatch):
    config = configs.load(AUTOENCODER)
    data = configs.override(config, [("data.clips", "20")]).data
    module = frozen_autoencoder.make_model(config.model)
    params = rules.unbox(jax.jit(module.init)(jax.random.key(0), np.zeros((1, 8, 32, 32, 3), np.float32)))
    channels = module.compression.channels
    coder = frozen_autoencoder.FrozenAutoencoder(
        config.model, params, Statistics((0.0,) * channels, (1.0,) * channels), "digest"
    )
    placed, encode = [], coder.encode

    def watched(videos, place):
        placed.append(place.num_devices)
        return encode(videos, place)

    monkeypatch.setattr(coder, "encode", watched)
    encoding.encode_clips(data, 0, coder, tmp_path / "eight")
    assert placed == [8]
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    encoding.encode_clips(data, 0, coder, tmp_path / "one")
    assert placed == [8, 1]
    for ours, theirs in zip(LatentsSource(tmp_path / "eight"), LatentsSource(tmp_path / "one"), strict=True):
        np.testing.assert_allclose(ours["latents"], theirs["latents"], atol=2e-3)  # half precision
        assert ours["caption"] == theirs["caption"]
