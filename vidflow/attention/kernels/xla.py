"""Attention in plain XLA: dense while small, in blocks of queries when long, so memory stays linear in length.

Blocks follow FlashAttention (Dao et al. 2022): the forward pass keeps the log-sum-exp of every row's logits, and with
it the backward pass recomputes any block of weights by itself. `forward` and `backward` are that pair; ring attention
calls them for one block of keys after another.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Shaped

from vidflow.attention.mask import Mask, allowed

Queries = Float[Array, "B N K head"]
Keys = Float[Array, "B M K head"]
RowSums = Float[Array, "B K N"]

DENSE_LOGITS = 2**22  # queries x keys up to which one block is used
BLOCK = 512  # queries in a block beyond that
NOTHING = -1e30  # the logit of a forbidden key: finite, so that a row which sees nothing gives zeros, not NaN


def attend(q: Queries, k: Keys, v: Keys, mask: Mask | None, label: str) -> Queries:
    """See `vidflow.attention.attend.attend`."""
    if q.shape[1] * k.shape[1] <= DENSE_LOGITS:
        return _forward(q, k, v, mask)[0].astype(v.dtype)
    return _blocked(label, q, k, v, mask)


def forward(q: Queries, k: Keys, v: Keys, mask: Mask | None) -> tuple[Queries, RowSums]:
    """Attention and the log-sum-exp of its logits, in float32; about `NOTHING` for a query that sees no key."""
    if q.shape[1] * k.shape[1] <= DENSE_LOGITS:
        return _forward(q, k, v, mask)
    out, row_sums = jax.lax.map(lambda block: _forward(block[0], k, v, block[1]), _blocks(q, mask))
    return _joined(out, q.shape[1]), _joined(jnp.swapaxes(row_sums, 2, 3), q.shape[1]).swapaxes(1, 2)


def backward(
    q: Queries, k: Keys, v: Keys, mask: Mask | None, out: Queries, row_sums: RowSums, g: Queries
) -> tuple[Queries, Keys, Keys]:
    """Gradients of q, k, v in float32 for these keys alone, given the result and log-sum-exp over all keys.

    Args:
      out: the attention over all keys, of which k and v may be a part.
      row_sums: the log-sum-exp over all keys.
      g: the gradient of `out`.
    """
    delta = jnp.einsum("bnkh,bnkh->bkn", g, out, preferred_element_type=jnp.float32)
    if q.shape[1] * k.shape[1] <= DENSE_LOGITS:
        return _backward(q, k, v, mask, delta, row_sums, g)

    def step(sums: tuple[Array, Array], block: tuple[Any, ...]) -> tuple[tuple[Array, Array], Array]:
        q, mask, delta, row_sums, g = block
        dq, dk, dv = _backward(q, k, v, mask, delta.swapaxes(1, 2), row_sums.swapaxes(1, 2), g)
        return (sums[0] + dk, sums[1] + dv), dq

    zeros = (jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
    rows = tuple(_split(a.swapaxes(1, 2)) for a in (delta, row_sums))
    (dk, dv), dq = jax.lax.scan(step, zeros, (*_blocks(q, mask), *rows, _split(g)))
    return _joined(dq, q.shape[1]), dk, dv


def _forward(q: Queries, k: Keys, v: Keys, mask: Mask | None) -> tuple[Queries, RowSums]:
    logits, may = _logits(q, k, mask)
    top = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    weights = jnp.exp(logits - top) * may
    total = weights.sum(axis=-1, keepdims=True)
    total = jnp.where(total > 0, total, 1)
    weights = (weights / total).astype(v.dtype)
    out = jnp.einsum("bknm,bmkh->bnkh", weights, v, preferred_element_type=jnp.float32)
    return out, (top + jnp.log(total))[..., 0]


def _backward(
    q: Queries, k: Keys, v: Keys, mask: Mask | None, delta: RowSums, row_sums: RowSums, g: Queries
) -> tuple[Queries, Keys, Keys]:
    product = partial(jnp.einsum, preferred_element_type=jnp.float32)
    logits, may = _logits(q, k, mask)
    weights = jnp.exp(logits - row_sums[..., None]) * may
    dv = product("bknm,bnkh->bmkh", weights.astype(g.dtype), g)
    d_weights = product("bnkh,bmkh->bknm", g, v)
    d_logits = (weights * (d_weights - delta[..., None]) * q.shape[-1] ** -0.5).astype(q.dtype)
    return product("bknm,bmkh->bnkh", d_logits, k), product("bknm,bnkh->bmkh", d_logits, q), dv


def _logits(q: Queries, k: Keys, mask: Mask | None) -> tuple[Float[Array, "B K N M"], Array]:
    logits = jnp.einsum("bnkh,bmkh->bknm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if mask is None:
        return logits, jnp.ones((), jnp.float32)
    may = allowed(mask)
    return jnp.where(may, logits, NOTHING), may


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blocked(label: str, q: Queries, k: Keys, v: Keys, mask: Mask | None) -> Queries:
    return forward(q, k, v, mask)[0].astype(v.dtype)


def _blocked_forward(label: str, q: Queries, k: Keys, v: Keys, mask: Mask | None) -> tuple[Queries, tuple]:
    out, row_sums = forward(q, k, v, mask)
    out, row_sums = checkpoint_name((out.astype(v.dtype), row_sums), label)
    return out, (q, k, v, mask, out, row_sums)


def _blocked_backward(label: str, saved: tuple, g: Queries) -> tuple:
    q, k, v, mask, out, row_sums = saved
    dq, dk, dv = backward(q, k, v, mask, out, row_sums, g)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


_blocked.defvjp(_blocked_forward, _blocked_backward)


def _blocks(q: Queries, mask: Mask | None) -> tuple[Array, Mask | None]:
    """Queries and their part of the mask, cut into blocks along a new first axis."""
    if mask is None:
        return _split(q), None
    part = _split(mask.q_segment)
    keys = jnp.broadcast_to(mask.kv_segment, (part.shape[0], *mask.kv_segment.shape))
    return _split(q), mask.replace(q_segment=part, kv_segment=keys)


def _split(x: Shaped[Array, "B N ..."]) -> Shaped[Array, "blocks B block ..."]:
    """Blocks of `BLOCK` along the second axis, the last one filled with zeros (segment 0 sees nothing)."""
    padded = jnp.pad(x, [(0, 0), (0, -x.shape[1] % BLOCK)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(padded.reshape(x.shape[0], -1, BLOCK, *x.shape[2:]), 1, 0)


def _joined(blocks: Float[Array, "blocks B block ..."], length: int) -> Float[Array, "B N ..."]:
    x = jnp.moveaxis(blocks, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]
