"""Clips become latents while the next ones are read."""

import threading

import numpy as np

from tests.tasks.experiments import AUTOENCODER
from vidflow import config as configs
from vidflow.autoencoders.latents import Compression
from vidflow.data import sources
from vidflow.data.latents_cache import LatentsSource
from vidflow.tasks import encoding
from vidflow.tasks.frozen_autoencoder import FrozenAutoencoder


class Clips:
    """The first `at_once` clips are given out once as many are asked for; each is as bright as its number."""

    def __init__(self, count, at_once):
        self.count, self.meeting, self.at_once = count, threading.Barrier(at_once, timeout=30), at_once

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index < self.at_once:
            self.meeting.wait()
        return {"video": np.full((8, 32, 32, 3), index, np.uint8), "caption": f"clip {index}"}


class Coder(FrozenAutoencoder):
    """Latents as bright as the clip."""

    compression = Compression(2, 8, 8, 4)
    digest, tiles = "digest", None

    def __init__(self):
        self.batches = []

    def encode(self, videos, place=None):
        self.batches.append(len(videos))
        return np.broadcast_to(videos.mean(axis=(1, 2, 3, 4), keepdims=True), (len(videos), 4, 4, 4, 4))


def encode(tmp_path, monkeypatch, count, threads):
    data = configs.override(configs.load(AUTOENCODER), [("data.threads", str(threads))]).data
    monkeypatch.setattr(encoding, "make_source", lambda *_, **__: Clips(count, threads))
    coder = Coder()
    encoding.encode_clips(data, 0, coder, tmp_path)
    return coder, LatentsSource(tmp_path)


def test_several_clips_are_read_at_a_time_and_stay_in_order(tmp_path, monkeypatch):
    coder, source = encode(tmp_path, monkeypatch, 150, threads=4)
    assert coder.batches == [64, 64, 64]
    for index in (0, 63, 64, 149):
        assert source[index]["caption"] == f"clip {index}"
        np.testing.assert_array_equal(source[index]["latents"], index)


def test_large_clips_are_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIXELS", 3 * 8 * 32 * 32)
    assert encode(tmp_path, monkeypatch, 7, threads=1)[0].batches == [3, 3, 3]
    monkeypatch.setattr(sources, "PIXELS", 1)
    assert encode(tmp_path / "large", monkeypatch, 2, threads=1)[0].batches == [1, 1]
