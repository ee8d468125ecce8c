"""Autoencoders that others trained: a folder as diffusers saves it, `config.json` and safetensors.

    wan = vidflow.autoencoders.load("Wan2.1-T2V-14B-Diffusers/vae")
    z = wan.encode(video).mean                      # the raw posterior
    again = wan.decode(z, video.shape[1], video.shape[2:4])
    wan.statistics.normalise(z)                     # what its diffusion model sees

An image autoencoder (`AutoencoderKL`) comes inflated, as Movie Gen's (section 3.1.1): its weights in the spatial layers
of a `TemporalAutoencoder`, whose temporal layers change nothing yet. Every tensor of the file must find its place and
every other parameter its tensor.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float

from vidflow import files
from vidflow.autoencoders import tiling
from vidflow.autoencoders.causal3d import HUNYUAN_VIDEO, WAN, CausalAutoencoder
from vidflow.autoencoders.latents import Compression, Posterior, Statistics, check_range
from vidflow.autoencoders.tae import TemporalAutoencoder
from vidflow.autoencoders.tiling import Tiles
from vidflow.errors import UsageError
from vidflow.typing import Video

Tensors = dict[str, np.ndarray]


class Pretrained:
    """A module with its weights.

    Attributes:
      module, params: as Linen applies them.
      statistics: with which its latents are normalised.
      clips: whether decoded values are cut to [-1, 1], as Wan's are.
      tiles: in which it works, if in any.
    """

    def __init__(
        self,
        module: CausalAutoencoder | TemporalAutoencoder,
        params: Any,
        statistics: Statistics,
        clips: bool,
        tiles: Tiles | None = None,
    ) -> None:
        self.module, self.statistics, self.clips, self.tiles = module, statistics, clips, tiles
        self.params = jax.tree.map(jnp.asarray, params)  # on the device once, not with every batch
        encode, fill = tiling.encode_with(module, tiles), module.compression.filled
        self._encode = jax.jit(lambda params, video: encode(params, fill(video)))
        self._decode = jax.jit(tiling.decode_with(module, tiles), static_argnums=2)

    @property
    def compression(self) -> Compression:
        return self.module.compression

    def encode(self, video: Float[Array | np.ndarray, "B T H W 3"]) -> Posterior:
        """The posterior over latents [B, t, h, w, c] of a video in [-1, 1].

        Where the strides do not divide height or width, its last row and column are repeated until they do.

        Raises:
          UsageError: pixels beyond [-1, 1].
        """
        check_range(video)
        return self._encode(self.params, video)

    def decode(
        self, latents: Float[Array | np.ndarray, "B t h w c"], num_frames: int, size: tuple[int, int] | None = None
    ) -> Video:
        """The first `num_frames` frames of the video with these latents, which are not normalised; of each frame, with
        a `size`, the upper left so many rows and columns."""
        video = self._decode(self.params, latents, num_frames)
        if size is not None:
            video = video[:, :, : size[0], : size[1]]
        return jnp.clip(video, -1.0, 1.0) if self.clips else video


def load(path: Any, tiles: Tiles | None = None) -> Pretrained:
    """Reads a folder with the `AutoencoderKLWan` of Wan 2.1, an `AutoencoderKLHunyuanVideo` or an `AutoencoderKL`; it
    will work in tiles if there are any.

    Raises:
      UsageError: no such folder, another kind of model, or a tensor that is missing, left over or of another shape;
        names the first.
    """
    config, form = _described(path)
    try:
        module, statistics = form.module(config), form.statistics(config)
    except KeyError as missing:
        raise UsageError(f"{path}/config.json has no {missing}: take the whole folder that diffusers saved.") from None
    init = partial(module.init, jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3)))
    like = nn.unbox(jax.eval_shape(init))
    theirs = read(path, like["params"])
    fresh = {} if len(theirs) == len(_flat(like["params"])) else _flat(nn.unbox(jax.jit(init)())["params"])
    params = {"params": traverse_util.unflatten_dict(fresh | theirs, sep="/")}
    return Pretrained(module, params, statistics, form.clips, tiles)


def is_published(path: Any) -> bool:
    """Whether this is a folder of the kind that `load` reads, or of another one that diffusers saved."""
    try:
        return "_class_name" in files.read_json(f"{path}/config.json")
    except UsageError:
        return False


def read(path: Any, like: Any) -> dict[str, np.ndarray]:
    """The parameters of the tree `like` that the folder has values for, by name; the temporal ones of an inflated model
    are not among them.

    Raises:
      UsageError: as `load`.
    """
    config, form = _described(path)
    left = form.prepare(files.read_tensors(f"{path}/diffusion_pytorch_model.safetensors")[0])
    found = {}
    for place, leaf in _flat(like).items():
        name = form.name(place, config)
        if name is None:
            continue
        if name not in left:
            raise UsageError(f"The weights at {path} have no tensor '{name}', which its config.json asks for.")
        value = left.pop(name)
        try:
            found[place] = _as_ours(value, place, leaf.shape)
        except ValueError:
            raise UsageError(
                f"The weights at {path} are of another layout: '{name}' is {value.shape}, and {place} is {leaf.shape}."
            ) from None
    if left:
        raise UsageError(f"The weights at {path} hold '{min(left)}', for which there is no place.")
    return found


def _described(path: Any) -> tuple[dict[str, Any], "Format"]:
    config = files.read_json(f"{path}/config.json")
    kind = config.get("_class_name")
    if kind is None:
        raise UsageError(f"{path} is no model that diffusers saved: name one, or a run of vidflow train with --run.")
    if kind not in FORMATS:
        raise UsageError(f"{path}/config.json describes a model {kind}: vidflow reads {', '.join(FORMATS)}.")
    return config, FORMATS[kind]


def _flat(tree: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


def _as_ours(value: np.ndarray, place: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of PyTorch's in our layout; ValueError if it has another number of features or another width."""
    value = value.astype(np.float32)
    if place.endswith("kernel"):
        value = np.moveaxis(value, (0, 1), (-1, -2))  # features of the result and of the input come first there
    if "spacetime" in place and value.ndim == 4:  # an image's, for the centre frame
        value = np.pad(value[None], ((1, 1), *[(0, 0)] * 4))
    if [n for n in value.shape if n > 1] != [n for n in shape if n > 1]:
        raise ValueError(value.shape)
    return value.reshape(shape)


# Formats


class Format(NamedTuple):
    """How a kind of model is written.

    Attributes:
      module, statistics: from its config.
      prepare: makes one tensor for each parameter.
      name: (name of a parameter, config) -> that of its tensor, or None if it has none.
      clips: see `Pretrained`.
    """

    module: Callable[[dict[str, Any]], CausalAutoencoder | TemporalAutoencoder]
    statistics: Callable[[dict[str, Any]], Statistics]
    prepare: Callable[[Tensors], Tensors]
    name: Callable[[str, dict[str, Any]], str | None]
    clips: bool


COMMON = {
    "in": "conv_in",
    "out": "conv_out",
    "middle_1": "mid_block.resnets.0",
    "middle_2": "mid_block.resnets.1",
    "middle_attention": "mid_block.attentions.0",
    "norm_1": "norm1",
    "norm_2": "norm2",
    "conv_1": "conv1",
    "conv_2": "conv2",
    "skip": "conv_shortcut",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "to_posterior": "quant_conv",
    "from_latents": "post_quant_conv",
    "kernel": "weight",
}
WAN_WORDS = COMMON | {"conv": "", "space": "resample.1", "time": "time_conv", "scale": "gamma"}
WAN_WORDS |= {"out_norm": "norm_out", "output": "proj"}
HUNYUAN_WORDS = COMMON | {"joint": "conv", "group": "", "scale": "weight"}
HUNYUAN_WORDS |= {"out_norm": "conv_norm_out", "norm": "group_norm", "output": "to_out.0"}
IMAGE_WORDS = COMMON | {"spatial": "", "spacetime": "", "conv": "", "scale": "weight", "norm": "conv_norm_out"}
IMAGE_WORDS |= {"space_norm": "group_norm", "space_query": "to_q", "space_key": "to_k", "space_value": "to_v"}
IMAGE_WORDS |= {"space_out": "to_out.0"}


def _name(place: str, words: dict[str, str], levels: int, down: Callable[[int], str], block: Callable[..., str]) -> str:
    """decoder/level_3_block_0/conv_1/conv/kernel -> decoder.up_blocks.0.resnets.0.conv1.conv.weight

    Args:
      words: a part of our name -> theirs; parts that are not here stay, empty ones go.
      down, block: where the encoder puts what lies behind a level, and a block of a level.
    """
    side, parts = place.split("/")[0], []
    for word in place.split("/"):
        kind, *numbers = re.split(r"_(?=\d)|_block_", word) if re.match(r"(level|down|up)_\d", word) else [word]
        if kind == "level" and side == "encoder":
            parts.append(block(*map(int, numbers)))
        elif kind == "level":
            parts.append(f"up_blocks.{levels - 1 - int(numbers[0])}.resnets.{numbers[1]}")
        elif kind == "up":
            parts.append(f"up_blocks.{levels - 1 - int(numbers[0])}.upsamplers.0")
        elif kind == "down":
            parts.append(down(int(numbers[0])))
        else:
            parts.append(words.get(word, word))
    return ".".join(filter(None, parts))


def _wan_name(place: str, config: dict[str, Any]) -> str:
    blocks = config["num_res_blocks"]  # and what lies behind a level counts on

    def block(level: int, number: int) -> str:
        return f"down_blocks.{level * (blocks + 1) + number}"

    return _name(place, WAN_WORDS, len(config["dim_mult"]), lambda level: block(level, blocks), block)


def _hunyuan_name(place: str, config: dict[str, Any]) -> str:
    levels = len(config["block_out_channels"])
    return _name(
        place,
        HUNYUAN_WORDS,
        levels,
        lambda level: f"down_blocks.{level}.downsamplers.0",
        lambda level, number: f"down_blocks.{level}.resnets.{number}",
    )


def _image_name(place: str, config: dict[str, Any]) -> str | None:
    if any(part in place for part in ("/temporal/", "/time_", "/hint_")):  # of what pictures have not
        return None
    levels = len(config["block_out_channels"])
    name = _name(
        place,
        IMAGE_WORDS,
        levels,
        lambda level: f"down_blocks.{level - 1}.downsamplers.0.conv",  # here it has the number of the next level
        lambda level, number: f"down_blocks.{level}.resnets.{number}",
    )
    return re.sub(r"(upsamplers\.0)\.(weight|bias)", r"\1.conv.\2", name)


def _wan_module(config: dict[str, Any]) -> CausalAutoencoder:
    unsupported = [name for name in ("is_residual", "attn_scales", "patch_size") if config.get(name)]
    if unsupported or config.get("decoder_base_dim") not in (None, config["base_dim"]):
        name = (unsupported or ["decoder_base_dim"])[0]
        raise UsageError(f"config.json sets {name}, as Wan 2.2 does: vidflow reads the autoencoder of Wan 2.1.")
    strides = tuple(2 if halves else 1 for halves in config["temperal_downsample"])
    widths = tuple(config["base_dim"] * factor for factor in config["dim_mult"])
    blocks, channels = config["num_res_blocks"], config["z_dim"]
    layout = WAN._replace(widths=widths, strides=strides, up_strides=strides, blocks=blocks, channels=channels)
    return CausalAutoencoder(layout)


def _wan_tensors(tensors: Tensors) -> Tensors:
    """With queries, keys and values apart."""
    apart = {}
    for name, value in tensors.items():
        if ".to_qkv." in name:
            apart |= {
                name.replace("to_qkv", f"to_{x}"): part for x, part in zip("qkv", np.split(value, 3), strict=True)
            }
        else:
            apart[name] = value
    return apart


def _hunyuan_module(config: dict[str, Any]) -> CausalAutoencoder:
    if config["temporal_compression_ratio"] != 4 or config["spatial_compression_ratio"] != 8:
        raise UsageError("config.json describes a compression other than 4 x 8 x 8: vidflow reads HunyuanVideo's own.")
    if len(config["block_out_channels"]) != 4 or not config["mid_block_add_attention"]:
        raise UsageError("config.json describes other than 4 levels with attention: vidflow reads HunyuanVideo's own.")
    layout = HUNYUAN_VIDEO._replace(
        widths=tuple(config["block_out_channels"]),
        blocks=config["layers_per_block"],
        channels=config["latent_channels"],
        groups=config["norm_num_groups"],
    )
    return CausalAutoencoder(layout)


def _image_module(config: dict[str, Any]) -> TemporalAutoencoder:
    pointwise = config.get("use_quant_conv", True)
    if config.get("use_post_quant_conv", True) != pointwise or not config.get("mid_block_add_attention", True):
        raise UsageError(
            "config.json describes convolutions or attention on one side alone: vidflow does not read that."
        )
    widths = tuple(config["block_out_channels"])
    return TemporalAutoencoder(
        widths=widths,
        strides=((2, 2),) * (len(widths) - 1),
        blocks=config["layers_per_block"],
        channels=config["latent_channels"],
        groups=config["norm_num_groups"],
        pointwise=pointwise,
    )


def _image_tensors(tensors: Tensors) -> Tensors:
    """With the names that attention has in diffusers now; files from before have their old ones still."""
    words = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    old = re.compile(rf"(?<=\.attentions\.0\.)({'|'.join(words)})(?=\.)")
    return {old.sub(lambda found: words[found[0]], name): value for name, value in tensors.items()}


def _scaled(config: dict[str, Any]) -> Statistics:
    """Latents are shifted, where the config says so, then scaled."""
    channels, shift = config["latent_channels"], config.get("shift_factor") or 0.0
    return Statistics((shift,) * channels, (1.0 / config["scaling_factor"],) * channels)


FORMATS = {
    "AutoencoderKLWan": Format(
        module=_wan_module,
        statistics=lambda config: Statistics(tuple(config["latents_mean"]), tuple(config["latents_std"])),
        prepare=_wan_tensors,
        name=_wan_name,
        clips=True,
    ),
    "AutoencoderKLHunyuanVideo": Format(_hunyuan_module, _scaled, dict, _hunyuan_name, clips=False),
    "AutoencoderKL": Format(
        module=_image_module,
        # Configs from before there was a factor mean Stable Diffusion 1's, as diffusers reads them.
        statistics=lambda config: _scaled({"scaling_factor": 0.18215} | config),
        prepare=_image_tensors,
        name=_image_name,
        clips=False,
    ),
}
