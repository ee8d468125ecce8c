"""How a text-to-video model is told its prompt: bytes through an encoder of its own, or embeddings computed before."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vidflow.errors import UsageError
from vidflow.scaling import flops
from vidflow.text import byte_tokens
from vidflow.text.byte_encoder import ByteEncoder
from vidflow.text.stack import Encoder, TextStack


class Prompts(NamedTuple):
    """The text side of a model, as `config.text` says it.

    Attributes:
      module: text of a batch -> (tokens [B, L, width], segment [B, L]).
      empty: the text of one row without a prompt, a tree of NumPy arrays; every row's text has its shapes.
      tokens: L.
      width: of a text token.
      forward_flops: of `module` on one row.
    """

    module: nn.Module
    empty: Any
    tokens: int
    width: int
    forward_flops: int


def make_prompts(text: ConfigDict, model_width: int, dtype: Any) -> Prompts:
    """`text.encoders`, tuples (name, tokens, width), says that embeddings of these encoders come with the data; without
    it a byte encoder is trained along.

    Raises:
      UsageError: a length that the stride of the byte encoder does not divide, or an empty tuple of encoders.
    """
    encoders = text.get("encoders")
    return _bytes(text, dtype) if encoders is None else _embeddings(encoders, model_width, dtype)


def without_prompt(prompts: Prompts, rows: int) -> Any:
    """The text of a batch of that many rows in which none has a prompt."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *x.shape)), prompts.empty)


def without_some(text: Any, empty: Any, drop: jax.Array) -> Any:
    """The text of a batch, with the empty prompt in the rows where `drop` [B] holds."""

    def choose(x: jax.Array, nothing: np.ndarray) -> jax.Array:
        return jnp.where(drop.reshape(-1, *[1] * nothing.ndim), nothing, x)

    return jax.tree.map(choose, text, empty)


def _bytes(text: ConfigDict, dtype: Any) -> Prompts:
    if text.length % text.stride:
        raise UsageError(f"config.text.length = {text.length} is not a multiple of config.text.stride = {text.stride}.")
    return Prompts(
        module=ByteEncoder(text.width, text.layers, text.heads, text.length, text.stride, dtype),
        empty=byte_tokens.tokenize([""], text.length)[0],
        tokens=text.length // text.stride,
        width=text.width,
        forward_flops=flops.byte_encoder_forward(
            width=text.width, layers=text.layers, length=text.length, stride=text.stride
        ),
    )


def _embeddings(encoders: tuple[tuple[str, int, int], ...], width: int, dtype: Any) -> Prompts:
    stack = tuple(Encoder(*encoder) for encoder in encoders)
    if not stack:
        raise UsageError("config.text.encoders is empty: name at least one as (name, tokens, width).")
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
    )
