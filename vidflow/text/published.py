"""How published text encoders are written: their config.json, and the names of their tensors.

Names of ours are paths into the tree of parameters; those of a layer stand once, with "{}" for its number.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import flax.linen as nn

from vidflow.errors import UsageError
from vidflow.text import t5
from vidflow.text.clip import ACTIVATIONS, ClipSize, ClipText
from vidflow.text.t5 import T5Encoder, T5Size

T5_NAMES = {
    "embedding": "shared.weight",
    "norm/scale": "encoder.final_layer_norm.weight",
    "positions/table": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "layers/positions/table": "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight",
    "layers/attention_norm/scale": "encoder.block.{}.layer.0.layer_norm.weight",
    "layers/query/kernel": "encoder.block.{}.layer.0.SelfAttention.q.weight",
    "layers/key/kernel": "encoder.block.{}.layer.0.SelfAttention.k.weight",
    "layers/value/kernel": "encoder.block.{}.layer.0.SelfAttention.v.weight",
    "layers/out/kernel": "encoder.block.{}.layer.0.SelfAttention.o.weight",
    "layers/mlp_norm/scale": "encoder.block.{}.layer.1.layer_norm.weight",
    "layers/gate/kernel": "encoder.block.{}.layer.1.DenseReluDense.wi_0.weight",
    "layers/up/kernel": "encoder.block.{}.layer.1.DenseReluDense.wi_1.weight",
    "layers/down/kernel": "encoder.block.{}.layer.1.DenseReluDense.wo.weight",
}
CLIP_NAMES = {
    "embedding": "embeddings.token_embedding.weight",
    "position": "embeddings.position_embedding.weight",
    "norm/scale": "final_layer_norm.weight",
    "norm/bias": "final_layer_norm.bias",
    "projection/kernel": "text_projection.weight",
}
for _ours, _theirs in {
    "attention_norm": "layer_norm1",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "mlp_norm": "layer_norm2",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}.items():
    CLIP_NAMES[f"layers/{_ours}/{'scale' if 'norm' in _ours else 'kernel'}"] = f"encoder.layers.{{}}.{_theirs}.weight"
    CLIP_NAMES[f"layers/{_ours}/bias"] = f"encoder.layers.{{}}.{_theirs}.bias"


# Shapes of published towers, of which plans are made without their weights.
TOWERS: dict[str, T5Size | ClipSize] = {
    "ul2": T5Size(32128, width=4096, layers=32, heads=16, head=256, feed_forward=16384, activation="silu"),
    "t5-v1.1-xxl": T5Size(32128, width=4096, layers=24, heads=64, head=64, feed_forward=10240),
    "byt5-small": T5Size(384, width=1472, layers=12, heads=6, head=64, feed_forward=3584),
    "byt5-xxl": T5Size(384, width=4672, layers=36, heads=64, head=64, feed_forward=12352),
    "umt5-xxl": T5Size(256384, width=4096, layers=24, heads=64, head=64, feed_forward=10240, own_positions=True),
    "clip-l": ClipSize(49408, width=768, layers=12, heads=12, feed_forward=3072, projection=768),
    "metaclip-g": ClipSize(49408, width=1280, layers=32, heads=20, feed_forward=5120, tokens=256, projection=1280),
}


def tower(name: str, tokens: int, dtype: Any) -> T5Encoder | ClipText:
    """One of `TOWERS`, for texts of so many tokens.

    Raises:
      UsageError: an unknown name.
    """
    if name not in TOWERS:
        raise UsageError(f"There is no published tower '{name}': use one of {', '.join(TOWERS)}.")
    size = TOWERS[name]
    return T5Encoder(size, dtype) if isinstance(size, T5Size) else ClipText(size._replace(tokens=tokens), dtype)


class Family(NamedTuple):
    """A kind of text encoder.

    Attributes:
      module: (config, names of the tensors, dtype) -> the tower.
      names: of ours -> those of its tensors.
      prefixes: that its tensors may have before these names.
      others: beginnings of names of tensors that belong to no encoder of text.
      instead: of a tensor -> the name that some files have it under.
    """

    module: Callable[[dict[str, Any], Collection[str], Any], nn.Module]
    names: dict[str, str]
    prefixes: tuple[str, ...]
    others: tuple[str, ...]
    instead: dict[str, str]


def family(config: dict[str, Any], path: Any) -> Family:
    """The family of the model that a config.json describes.

    Raises:
      UsageError: one that vidflow does not read.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UsageError(
            f"{path}/config.json describes a model of type {kind!r}: vidflow reads encoders of text of the types "
            f"{', '.join(FAMILIES)}."
        )
    return FAMILIES[kind]


def _t5(config: dict[str, Any], names: Collection[str], dtype: Any) -> T5Encoder:
    gated, _, activation = config.get("feed_forward_proj", "relu").partition("-")
    if gated != "gated" or activation not in t5.ACTIVATIONS:
        raise UsageError(
            f"config.json describes the feed-forward network {'-'.join(filter(None, (gated, activation)))!r}: vidflow "
            "reads 'gated-gelu', which T5 v1.1, ByT5 and UMT5 have and the first T5 has not, and UL2's 'gated-silu'."
        )
    size = T5Size(
        vocabulary=config["vocab_size"],
        width=config["d_model"],
        layers=config["num_layers"],
        heads=config["num_heads"],
        head=config["d_kv"],
        feed_forward=config["d_ff"],
        activation=activation,
        own_positions=config["model_type"] == "umt5",
        buckets=config["relative_attention_num_buckets"],
        reach=config.get("relative_attention_max_distance", 128),
        epsilon=config.get("layer_norm_epsilon", 1e-6),
    )
    return T5Encoder(size, dtype)


def _clip(config: dict[str, Any], names: Collection[str], dtype: Any) -> ClipText:
    text = {**config, **config.get("text_config", {})}  # of both towers, or of that of text alone
    activation = text.get("hidden_act", "quick_gelu")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UsageError(f"config.json describes the activation {activation!r}: vidflow knows {known}.")
    # Towers beside one of images have it, and those that say so.
    said = [str(name) for name in config.get("architectures") or ()]
    projected = config["model_type"] == "clip" or any(name.endswith("WithProjection") for name in said)
    size = ClipSize(
        vocabulary=text.get("vocab_size", 49408),
        width=text.get("hidden_size", 512),
        layers=text.get("num_hidden_layers", 12),
        heads=text.get("num_attention_heads", 8),
        feed_forward=text.get("intermediate_size", 2048),
        tokens=text.get("max_position_embeddings", 77),
        activation=activation,
        projection=config.get("projection_dim", 512) if projected or "text_projection.weight" in names else 0,
        epsilon=text.get("layer_norm_eps", 1e-5),
    )
    return ClipText(size, dtype)


_T5_OTHERS = ("decoder.", "lm_head.", "encoder.embed_tokens.")
_T5 = Family(_t5, T5_NAMES, ("",), _T5_OTHERS, {"shared.weight": "encoder.embed_tokens.weight"})
_CLIP_OTHERS = ("vision_model.", "visual_projection.", "logit_scale", "embeddings.position_ids")
_CLIP = Family(_clip, CLIP_NAMES, ("text_model.", ""), _CLIP_OTHERS, {})
FAMILIES = {"t5": _T5, "umt5": _T5, "mt5": _T5, "clip": _CLIP, "clip_text_model": _CLIP}
