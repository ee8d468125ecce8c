"""The fused attention of cuDNN, on NVIDIA GPUs; half precision only."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.attention.mask import Mask


def attend(
    q: Float[Array, "B N K head"],
    k: Float[Array, "B M K head"],
    v: Float[Array, "B M K head"],
    mask: Mask | None,
    label: str,
) -> Float[Array, "B N K head"]:
    """See `vidflow.attention.attend.attend`. Of a mask it takes the number of real keys in every row."""
    if mask is None:
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    lengths = [(segment != 0).sum(axis=1, dtype=jnp.int32) for segment in (mask.q_segment, mask.kv_segment)]
    return jax.nn.dot_product_attention(
        q, k, v, query_seq_lengths=lengths[0], key_value_seq_lengths=lengths[1], implementation="cudnn"
    )
