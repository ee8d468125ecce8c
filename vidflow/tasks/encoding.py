"""Clips to cached latents."""

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from vidflow import config as configs
from vidflow.data import latents_cache
from vidflow.data.latents_cache import Layout, Share
from vidflow.data.pipeline import Source
from vidflow.data.sources import clips_at_once, make_source
from vidflow.parallel.mesh import batch_sharding, make_mesh
from vidflow.tasks.frozen_autoencoder import FrozenAutoencoder

BATCH = 64
LISTED = "data.json"  # of a cache: the videos that it is made of
OTHERS = ("threads", "max_bad", "test_path")  # settings that do not say which clips are encoded


def encode_clips(
    data: ConfigDict, seed: int, autoencoder: FrozenAutoencoder, folder: Path, share: Share = latents_cache.ALL
) -> None:
    """Encodes the clips of `data` (see data.sources), or a share of them, into a cache in `folder`, going on where a
    last call stopped. A batch is spread over the devices of this process.

    Raises:
      UsageError: the folder holds a cache of other data or of another autoencoder, the data are refused, or their
        height or width is not one that the autoencoder's strides divide.
    """
    shape = autoencoder.compression.latent_shape(data.frames, data.height, data.width)
    clips = {name: value for name, value in json.loads(configs.to_json(data)).items() if name not in OTHERS}
    recipe = {"data": clips, "seed": seed, "autoencoder": autoencoder.digest}
    recipe |= {"tiles": [list(part) for part in autoencoder.tiles]} if autoencoder.tiles else {}
    if latents_cache.is_whole(folder, recipe):
        return
    folder.mkdir(parents=True, exist_ok=True)
    source = make_source(data, seed=seed, manifest=folder / LISTED)

    devices = math.gcd(BATCH, jax.local_device_count())
    batch = devices * clips_at_once(data.frames, data.height, data.width, most=BATCH // devices)
    place = batch_sharding(make_mesh(data=devices, devices=jax.local_devices()))

    def encode(indices: range) -> latents_cache.Encoded:
        latents, captions = [], []
        for clips in _ahead(source, indices, batch, data.threads):
            # Full batches only, the last one padded, so that the encoder compiles once.
            videos = np.stack([clips[min(i, len(clips) - 1)]["video"] for i in range(batch)])
            latents.append(autoencoder.encode(videos, place)[: len(clips)])
            captions += [clip["caption"] for clip in clips]
            bar.update(len(clips))
        return np.concatenate(latents), captions

    mine = latents_cache.begin(folder, recipe, Layout.of(len(source), shape)).parts(share)
    before = 0
    with tqdm(total=sum(map(len, mine.values())), unit="clip", dynamic_ncols=True, desc="encode") as bar:
        for clips in latents_cache.write(folder, encode, share):
            before += clips
            bar.update(before - bar.n)  # a part that was there already


def check_videos(data: ConfigDict, seed: int, folder: Path) -> None:
    """Of a cache made of a folder of videos: that these are there as they were.

    Raises:
      UsageError: one that is not.
    """
    if (folder / LISTED).exists():
        make_source(data, seed=seed, manifest=folder / LISTED)


def _ahead(source: Source, indices: range, batch: int, threads: int) -> Iterator[list[dict[str, Any]]]:
    """The clips, `batch` at a time: while some are encoded, the next ones are read."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=batch + threads)
    clips = grain.MapDataset.range(indices.start, indices.stop).map(source.__getitem__).to_iter_dataset(options)
    ahead = iter(clips)
    while some := list(islice(ahead, batch)):
        yield some
