"""A trained autoencoder as an artefact: a folder that moves with the runs that use it.

    autoencoder.json       its settings, latent statistics, and the digest of the weights
    weights.safetensors
"""

import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow import files
from vidflow.autoencoders import tiling
from vidflow.autoencoders.causal3d import CausalAutoencoder, Layout
from vidflow.autoencoders.latents import Compression, Statistics
from vidflow.autoencoders.tae import TemporalAutoencoder
from vidflow.autoencoders.tiling import Tiles
from vidflow.data.sources import to_bytes, to_float
from vidflow.errors import UsageError
from vidflow.parallel import compiling, rules
from vidflow.training import weights

NAME = "autoencoder"  # of the folder inside a run
CARD = "autoencoder.json"
# Of config.model by its family: what its words may be.
CHOICES = {
    "tae": {"kind": ("2.5d", "3d")},
    "causal": {"norm": ("rms", "frames", "clip"), "attention": ("", "frame", "earlier")},
}


def make_model(model: ConfigDict) -> TemporalAutoencoder | CausalAutoencoder:
    """The module that `config.model` of an autoencoder experiment describes.

    Raises:
      UsageError: an unknown family or the fields of another one, a word that is no choice, or widths, strides and
        groups that do not fit together.
    """
    if model.family == "causal":
        layout = _layout(model)
        _check_levels(model)
        return CausalAutoencoder(layout, jnp.dtype(model.dtype))
    if model.family != "tae":
        raise UsageError(f"Unknown config.model.family '{model.family}': use tae or causal.")
    _check_levels(model)
    return TemporalAutoencoder(
        widths=tuple(model.widths),
        strides=tuple(tuple(stride) for stride in model.strides),
        blocks=model.blocks,
        channels=model.channels,
        patch=model.patch,
        attention=model.attention,
        groups=model.groups,
        kind=model.kind,
        narrow=model.narrow,
        pointwise=model.pointwise,
        hinted=model.hinted,
        dtype=jnp.dtype(model.dtype),
    )


def _check_levels(model: ConfigDict) -> None:
    """Of what the modules themselves would take for something else, or tell by a traceback."""
    for name, choices in CHOICES[model.family].items():
        if model[name] not in choices:
            raise UsageError(f"config.model.{name} is '{model[name]}': use {' or '.join(map(repr, choices))}.")
    steps = len(model.widths) - 1
    for name in ("strides", "up_strides") if model.family == "causal" else ("strides",):
        if len(model[name]) != steps:
            raise UsageError(
                f"config.model.{name} has {len(model[name])} strides and config.model.widths {steps + 1} levels: give "
                "a stride between each two of them."
            )
    if model.family == "causal" and (other := [n for n in (*model.strides, *model.up_strides) if n not in (1, 2)]):
        raise UsageError(
            f"config.model.strides={model.strides}, up_strides={model.up_strides}: a causal autoencoder keeps the "
            f"frames of a level or halves their number; give 1 or 2 instead of {other[0]}."
        )
    if model.family == "causal" and math.prod(model.up_strides) != math.prod(model.strides):
        raise UsageError(
            f"config.model.up_strides={model.up_strides} do not undo config.model.strides={model.strides}: give both "
            "the same product."
        )
    if model.family == "tae" and any(not isinstance(stride, tuple) or len(stride) != 2 for stride in model.strides):
        raise UsageError(f"config.model.strides={model.strides} are not pairs: give each along time and along space.")
    if model.family == "tae" and any(number < 1 for stride in model.strides for number in stride):
        raise UsageError(f"config.model.strides={model.strides}: each number must be 1 or more.")
    grouped = model.groups and not (model.family == "causal" and model.norm == "rms")
    if grouped and (uneven := [width for width in model.widths if width % model.groups]):
        raise UsageError(
            f"config.model.groups={model.groups} does not divide the {uneven[0]} features of a level: change one of "
            "them, or set groups to 0 for no normalisation in groups."
        )


def _layout(model: ConfigDict) -> Layout:
    if missing := [name for name in Layout._fields if name not in model]:
        raise UsageError(
            f"config.model.family=causal has no {', '.join(missing)}: the family is not changed by itself; "
            "experiments/moviegen/autoencoder.py:like=wan has a whole one."
        )
    fields = {name: model[name] for name in Layout._fields}
    return Layout(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def make_tiles(config: ConfigDict) -> Tiles | None:
    """What `config.tiles` of an autoencoder says: sizes and overlaps along (time, height, width) in latents; none where
    they are empty.

    Raises:
      UsageError: other than three whole numbers each, or tiles that cannot be.
    """
    if not config.size:
        return None
    whole = all(type(number) is int for number in (*config.size, *config.overlap))
    if len(config.size) != 3 or len(config.overlap) != 3 or not whole:
        raise UsageError(
            f"tiles.size={config.size}, tiles.overlap={config.overlap}: give whole numbers for time, height and width "
            "each."
        )
    return Tiles(tuple(config.size), tuple(config.overlap)).check()


class FrozenAutoencoder:
    """Bytes of video to normalised latents and back, with fixed weights. `digest` is of all that latents depend on:
    settings, statistics and weights."""

    def __init__(
        self, model: ConfigDict, params: Any, statistics: Statistics, digest: str, tiles: Tiles | None = None
    ) -> None:
        self.model, self.statistics, self.digest, self.tiles = model, statistics, digest, tiles
        self.params = jax.tree.map(jnp.asarray, params)  # on the device once, not with every batch
        module = make_model(model)
        self.compression: Compression = module.compression
        encode, decode = tiling.encode_with(module, tiles), tiling.decode_with(module, tiles)
        fill = self.compression.filled
        jit = partial(jax.jit, compiler_options=compiling.options(jax.devices()[0]))
        self._encode = jit(lambda params, video: statistics.normalise(encode(params, fill(video)).mean))
        self._decode = jit(
            lambda params, z, frames: decode(params, statistics.denormalise(z), frames), static_argnums=2
        )

    def encode(
        self, video: UInt8[np.ndarray, "B T H W 3"], place: Sharding | None = None
    ) -> Float[np.ndarray, "B t h w C"]:
        """The normalised posterior mean; of a height or width that the strides do not divide, see
        `Compression.filled`. With a `place`, where its rows lie."""
        pixels = to_float(video)
        return np.asarray(self._encode(self.params, pixels if place is None else jax.device_put(pixels, place)))

    def decode(
        self, latents: Float[Array | np.ndarray, "B t h w C"], frames: int, size: tuple[int, int] | None = None
    ) -> UInt8[np.ndarray, "B T H W 3"]:
        """The first `frames` frames of the video with these normalised latents; of each frame, with a `size`, the upper
        left so many rows and columns."""
        video = np.asarray(self._decode(self.params, latents, frames))
        return to_bytes(video if size is None else video[:, :, : size[0], : size[1]])


def save(folder: Path, model: ConfigDict, params: Any, statistics: Statistics) -> None:
    """Writes the artefact; autoencoder.json comes last and vouches for the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights.save(folder / "weights.safetensors", params)
    card = {
        "model": json.loads(configs.to_json(model)),
        "statistics": statistics._asdict(),
        "sha256": files.sha256(folder / "weights.safetensors"),
    }
    files.write_record(folder / CARD, card)


def copy(trained: Path, own: Path) -> None:
    """The artefact into another folder, unless that has one.

    Raises:
      UsageError: as `load`.
    """
    if (own / CARD).exists():
        return
    load(trained)  # refuse a bad one before copying it
    own.mkdir(parents=True, exist_ok=True)
    for name in ("weights.safetensors", CARD):  # the card last: it vouches for the weights
        shutil.copyfile(trained / name, own / (name + ".tmp"))
        (own / (name + ".tmp")).replace(own / name)


def load(folder: Path, tiles: Tiles | None = None) -> FrozenAutoencoder:
    """Reads the artefact, which will work in tiles if there are any.

    Raises:
      UsageError: a folder without one, or weights that are cut short, altered or of another shape.
    """
    card, model = _card(folder)
    statistics = Statistics(*(tuple(card["statistics"][name]) for name in Statistics._fields))
    tensors = folder / "weights.safetensors"
    if not tensors.exists() or files.sha256(tensors) != card["sha256"]:
        raise UsageError(f"{tensors} is not what {CARD} vouches for: copy it or train it again.")
    params, _ = weights.load(tensors)
    like = jax.eval_shape(make_model(model).init, jax.random.key(0), _one_frame(model))
    weights.check_shapes(params, rules.unbox(like), folder)
    return FrozenAutoencoder(model, params, statistics, files.digest(card), tiles)


def compression(folder: Path) -> Compression:
    """That of an artefact, by its card alone.

    Raises:
      UsageError: a folder without one.
    """
    return make_model(_card(folder)[1]).compression


def _card(folder: Path) -> tuple[dict[str, Any], ConfigDict]:
    """What vouches for the weights, and the settings in it."""
    try:
        card = files.read_record(folder / CARD)
    except FileNotFoundError:
        raise UsageError(
            f"{folder} holds no trained autoencoder (no {CARD} there): finish its training, or name another run."
        ) from None
    return card, configs.from_json(json.dumps(card["model"]))


def _one_frame(model: ConfigDict) -> jax.ShapeDtypeStruct:
    compression = make_model(model).compression
    return jax.ShapeDtypeStruct((1, 1, compression.height, compression.width, 3), np.float32)
