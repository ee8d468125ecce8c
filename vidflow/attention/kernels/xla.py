"""Attention in plain XLA: dense while small, in blocks of queries when long, so memory stays linear in length."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.attention.mask import Mask, allowed

DENSE_LOGITS = 2**22  # queries x keys up to which one block is used
BLOCK = 512  # queries in a block beyond that


def attend(
    q: Float[Array, "B N K head"], k: Float[Array, "B M K head"], v: Float[Array, "B M K head"], mask: Mask | None
) -> Float[Array, "B N K head"]:
    """See `vidflow.attention.attend.attend`."""
    queries, keys = q.shape[1], k.shape[1]
    if queries * keys <= DENSE_LOGITS:
        return _dense(q, k, v, mask)

    # Recomputing a block's logits in the backward pass is what keeps them from all being stored.
    @jax.checkpoint
    def block(start: jax.Array) -> Float[Array, "B block K head"]:
        part = jax.lax.dynamic_slice_in_dim(q, start, BLOCK, axis=1)
        if mask is None:
            return _dense(part, k, v, None)
        segment = jax.lax.dynamic_slice_in_dim(mask.q_segment, start, BLOCK, axis=1)
        return _dense(part, k, v, mask.replace(q_segment=segment))

    padding = -queries % BLOCK
    if padding:
        q = jnp.pad(q, ((0, 0), (0, padding), (0, 0), (0, 0)))
        if mask is not None:
            mask = mask.replace(q_segment=jnp.pad(mask.q_segment, ((0, 0), (0, padding))))
    blocks = jax.lax.map(block, jnp.arange(0, queries + padding, BLOCK))
    return jnp.moveaxis(blocks, 0, 1).reshape(q.shape)[:, :queries]


def _dense(
    q: Float[Array, "B N K head"], k: Float[Array, "B M K head"], v: Float[Array, "B M K head"], mask: Mask | None
) -> Float[Array, "B N K head"]:
    logits = jnp.einsum("bnkh,bmkh->bknm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if mask is None:
        weights = jax.nn.softmax(logits, axis=-1)
    else:
        may = allowed(mask.q_segment, mask.kv_segment)
        # A large negative number instead of -inf, then a product: a row that sees nothing gives zeros, not NaN.
        weights = jax.nn.softmax(jnp.where(may, logits, -1e30), axis=-1) * may
    return jnp.einsum("bknm,bmkh->bnkh", weights.astype(v.dtype), v)
