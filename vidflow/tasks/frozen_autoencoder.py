"""A trained autoencoder as an artefact: a folder that moves with the runs that use it.

    autoencoder.json       its settings, latent statistics, and the digest of the weights
    weights.safetensors
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow import files
from vidflow.autoencoders.latents import Compression, Statistics
from vidflow.autoencoders.tae import TemporalAutoencoder
from vidflow.data.sources import to_bytes, to_float
from vidflow.errors import UsageError
from vidflow.parallel import rules
from vidflow.training import weights

NAME = "autoencoder"  # of the folder inside a run


def make_model(model: ConfigDict) -> TemporalAutoencoder:
    """The module that `config.model` of an autoencoder experiment describes."""
    return TemporalAutoencoder(
        widths=tuple(model.widths),
        strides=tuple(tuple(stride) for stride in model.strides),
        blocks=model.blocks,
        channels=model.channels,
        patch=model.patch,
        attention=model.attention,
        groups=model.groups,
        dtype=jnp.dtype(model.dtype),
    )


class FrozenAutoencoder:
    """Bytes of video to normalised latents and back, with fixed weights."""

    def __init__(self, model: ConfigDict, params: Any, statistics: Statistics, digest: str) -> None:
        self.model, self.params, self.statistics, self.digest = model, params, statistics, digest
        module = make_model(model)
        self.compression: Compression = module.compression

        def encode(params: Any, video: Float[Array, "B T H W 3"]) -> Float[Array, "B t h w C"]:
            return statistics.normalise(module.apply(params, video, method="encode").mean)

        def decode(params: Any, latents: Float[Array, "B t h w C"], frames: int) -> Float[Array, "B T H W 3"]:
            return module.apply(params, statistics.denormalise(latents), frames, method="decode")

        self._encode = jax.jit(encode)
        self._decode = jax.jit(decode, static_argnums=2)

    def encode(self, video: UInt8[np.ndarray, "B T H W 3"]) -> Float[np.ndarray, "B t h w C"]:
        """The normalised posterior mean."""
        self.compression.latent_shape(*video.shape[1:4])
        return np.asarray(self._encode(self.params, to_float(video)))

    def decode(self, latents: Float[Array | np.ndarray, "B t h w C"], frames: int) -> UInt8[np.ndarray, "B T H W 3"]:
        """The first `frames` frames of the video with these normalised latents."""
        return to_bytes(np.asarray(self._decode(self.params, latents, frames)))


def save(folder: Path, model: ConfigDict, params: Any, statistics: Statistics) -> None:
    """Writes the artefact; autoencoder.json comes last and vouches for the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights.save(folder / "weights.safetensors", params)
    card = {
        "model": json.loads(configs.to_json(model)),
        "statistics": statistics._asdict(),
        "sha256": files.sha256(folder / "weights.safetensors"),
    }
    files.write_record(folder / "autoencoder.json", card)


def load(folder: Path) -> FrozenAutoencoder:
    """Reads the artefact.

    Raises:
      UsageError: a folder without one, or weights that are cut short, altered or of another shape.
    """
    path = folder / "autoencoder.json"
    try:
        card = files.read_record(path)
        model = configs.from_json(json.dumps(card["model"]))
        statistics = Statistics(*(tuple(card["statistics"][name]) for name in Statistics._fields))
    except FileNotFoundError:
        raise UsageError(
            f"{folder} holds no trained autoencoder (no {path.name} there): finish its training, or name another run."
        ) from None
    tensors = folder / "weights.safetensors"
    if not tensors.exists() or files.sha256(tensors) != card["sha256"]:
        raise UsageError(f"{tensors} is not what {path.name} vouches for: copy it or train it again.")
    params, _ = weights.load(tensors)
    like = jax.eval_shape(make_model(model).init, jax.random.key(0), _one_frame(model))
    weights.check_shapes(params, rules.unbox(like), folder)
    return FrozenAutoencoder(model, params, statistics, card["sha256"])


def _one_frame(model: ConfigDict) -> jax.ShapeDtypeStruct:
    compression = make_model(model).compression
    return jax.ShapeDtypeStruct((1, 1, compression.height, compression.width, 3), np.float32)

