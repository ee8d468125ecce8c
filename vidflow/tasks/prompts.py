"""How a text-to-video model is told its prompt: bytes through an encoder of its own, or embeddings computed before."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool
from ml_collections import ConfigDict

from vidflow.errors import UsageError
from vidflow.scaling import flops
from vidflow.text import byte_tokens
from vidflow.text.byte_encoder import ByteEncoder
from vidflow.text.stack import Encoder, TextStack
from vidflow.typing import RowKeys


class Prompts(NamedTuple):
    """The text side of a model, as `config.text` says it.

    Attributes:
      module: text of a batch -> (tokens [B, L, width], segment [B, L]).
      empty: the text of one row without a prompt, a tree of NumPy arrays; every row's text has its shapes.
      tokens: L.
      width: of a text token.
      forward_flops: of `module` on one row.
      drops: a random key for each row -> where the empty text stands for the row's, a tree of booleans [B] as deep as
        parts of the text are dropped on their own.
    """

    module: nn.Module
    empty: Any
    tokens: int
    width: int
    forward_flops: int
    drops: Callable[[RowKeys], Any]


def make_prompts(text: ConfigDict, model_width: int, dtype: Any) -> Prompts:
    """With `text.encoders` embeddings by those that `text.use` names, in its order, come with the data; without, a byte
    encoder is trained along.

    Raises:
      UsageError: a length that the stride of the byte encoder does not divide, or a width that its heads do not, no
        encoder in use, or an unknown one.
    """
    return _bytes(text, dtype) if text.get("encoders") is None else _embeddings(text, model_width, dtype)


def encoders_in_use(text: ConfigDict) -> dict[str, ConfigDict]:
    """The settings of each, by name, in their order.

    Raises:
      UsageError: none, one twice, or one that `text.encoders` has not.
    """
    unknown = [name for name in text.use if name not in text.encoders]
    if twice := [name for name in text.use if tuple(text.use).count(name) > 1]:
        raise UsageError(f"config.text.use names '{twice[0]}' twice: name each encoder once.")
    if unknown or not text.use:
        what = f"names '{unknown[0]}'" if unknown else "is empty"
        raise UsageError(f"config.text.use {what}: name one or more of {', '.join(text.encoders)}.")
    return {name: text.encoders[name] for name in text.use}


def without_prompt(prompts: Prompts, rows: int) -> Any:
    """The text of a batch of that many rows in which none has a prompt."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *x.shape)), prompts.empty)


def without_some(text: Any, empty: Any, drop: Any) -> Any:
    """The text of a batch, with the empty one in the rows where `drop` holds: [B], or a tree of these over the first
    levels of the text."""

    def in_part(drop: jax.Array, text: Any, empty: Any) -> Any:
        def choose(x: jax.Array, nothing: np.ndarray) -> jax.Array:
            return jnp.where(drop.reshape(-1, *[1] * nothing.ndim), nothing, x)

        return jax.tree.map(choose, text, empty)

    return jax.tree.map(in_part, drop, text, empty)


def _bytes(text: ConfigDict, dtype: Any) -> Prompts:
    if text.length % text.stride:
        raise UsageError(f"config.text.length = {text.length} is not a multiple of config.text.stride = {text.stride}.")
    if text.width % text.heads:
        raise UsageError(f"config.text.width = {text.width} is not a multiple of config.text.heads = {text.heads}.")
    return Prompts(
        module=ByteEncoder(text.width, text.layers, text.heads, text.length, text.stride, dtype),
        empty=byte_tokens.tokenize([""], text.length)[0],
        tokens=text.length // text.stride,
        width=text.width,
        forward_flops=flops.byte_encoder_forward(
            width=text.width, layers=text.layers, length=text.length, stride=text.stride
        ),
        drops=partial(_draws, chance=text.dropout),
    )


def _embeddings(text: ConfigDict, width: int, dtype: Any) -> Prompts:
    used = encoders_in_use(text)
    stack = tuple(Encoder(name, encoder.tokens, encoder.width) for name, encoder in used.items())
    return Prompts(
        module=TextStack(stack, width, dtype),
        # No real token at all: cross-attention then adds nothing.
        empty={
            encoder.name: {
                "embeddings": np.zeros((encoder.tokens, encoder.width), jnp.bfloat16),
                "mask": np.zeros(encoder.tokens, bool),
            }
            for encoder in stack
        },
        tokens=sum(encoder.tokens for encoder in stack),
        width=width,
        forward_flops=sum(2 * encoder.tokens * encoder.width * width for encoder in stack),
        drops=partial(_drops, text=text),
    )


def _drops(keys: RowKeys, text: ConfigDict) -> dict[str, Bool[Array, "B"]]:
    """All encoders together, and each on its own."""
    together = _draws(keys, text.dropout)

    def own(name: str) -> Bool[Array, "B"]:
        # By the encoder's name, so that its draws do not depend on which others are in use.
        named = jax.vmap(lambda key: jax.random.fold_in(key, zlib.crc32(name.encode())))(keys)
        return _draws(named, text.encoders[name].dropout)

    return {name: together | own(name) for name in text.use}


def _draws(keys: RowKeys, chance: float) -> Bool[Array, "B"]:
    return jax.vmap(lambda key: jax.random.bernoulli(key, chance))(keys)
