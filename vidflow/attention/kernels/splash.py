"""Splash attention: the blocked Pallas kernel that JAX has for TPUs. Segments are masked inside the kernel."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Float

from vidflow.attention.mask import Mask

LANES = 128  # lengths and blocks are multiples of this
QUERY_BLOCK = 1024
KEY_BLOCK = 2048  # the fused backward kernel keeps a partial dq for every block of keys: few and large ones
COMPUTE_BLOCK = 512
WASTE = 0.02  # of a length that blocks need not divide
PARTIAL_BYTES = 2**30  # of those partial dq at a time: beyond, heads go one group after another


def attend(
    q: Float[Array, "B N K head"],
    k: Float[Array, "B M K head"],
    v: Float[Array, "B M K head"],
    mask: Mask | None,
    label: str,
    interpret: bool = False,
) -> Float[Array, "B N K head"]:
    """See `vidflow.attention.attend.attend`; a query that sees nothing gets something finite.

    Lengths are filled up to whole blocks with keys that none sees.
    `interpret` runs the kernel's program without a TPU, slowly: for tests.
    """
    length, dtype = q.shape[1], v.dtype
    q_block, kv_block = _block(length, QUERY_BLOCK), _block(k.shape[1], KEY_BLOCK)
    whole = length % q_block == 0 and k.shape[1] % kv_block == 0
    segments = None
    if mask is not None or not whole:
        q_segment, kv_segment = _segments(q, k, mask)
        # In splash equal numbers attend, so padding differs on the two sides.
        q_segment = _pad(jnp.where(q_segment == 0, -1, q_segment), q_block, -1)
        segments = splash.SegmentIds(q_segment, _pad(kv_segment, kv_block))
    q, k, v = _pad(q * q.shape[-1] ** -0.5, q_block), _pad(k, kv_block), _pad(v, kv_block)
    heads = _heads_at_once(q.shape, k.shape[1] // kv_block)
    blocks = _block_sizes(q_block, kv_block)
    kernel = _kernel(heads, q.shape[1], k.shape[1], blocks, label, interpret)
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    groups = [slice(low, low + heads) for low in range(0, q.shape[1], heads)]
    out = jnp.concatenate([jax.vmap(kernel)(q[:, g], k[:, g], v[:, g], segments) for g in groups], axis=1)
    return jnp.swapaxes(out, 1, 2)[:, :length].astype(dtype)


def _heads_at_once(q: tuple[int, ...], key_blocks: int) -> int:
    """As many as keep the partial dq of the backward kernel within `PARTIAL_BYTES`, a divisor of the heads."""
    rows, queries, heads, head = q
    one = 2 * rows * key_blocks * queries * head
    return max(n for n in range(1, heads + 1) if heads % n == 0 and (n == 1 or n * one <= PARTIAL_BYTES))


def _segments(q: Array, k: Array, mask: Mask | None) -> tuple[Array, Array]:
    if mask is None:
        return jnp.ones(q.shape[:2], jnp.int32), jnp.ones(k.shape[:2], jnp.int32)
    if mask.relation in ("real", "all"):
        return jnp.ones_like(mask.q_segment), (mask.kv_segment != 0).astype(jnp.int32)
    return mask.q_segment, mask.kv_segment


def _block_sizes(q_block: int, kv_block: int) -> splash.BlockSizes:
    compute = max(size for size in range(LANES, COMPUTE_BLOCK + 1, LANES) if kv_block % size == 0)
    return splash.BlockSizes(
        block_q=q_block,
        block_kv=kv_block,
        block_kv_compute=compute,
        block_q_dkv=q_block,
        block_kv_dkv=kv_block,
        block_kv_dkv_compute=compute,
        use_fused_bwd_kernel=True,
    )


def _kernel(
    heads: int, queries: int, keys: int, blocks: splash.BlockSizes, label: str, interpret: bool
) -> Callable[..., Array]:
    return splash.make_splash_mha(
        splash.MultiHeadMask([splash.FullMask((queries, keys))] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=label,
        interpret=interpret,
    )


def _block(length: int, most: int) -> int:
    """The largest multiple of `LANES` up to `most` whose last block wastes at most `WASTE` of the length; failing that,
    `LANES`."""
    sizes = range(min(most, -(-length // LANES) * LANES), LANES - 1, -LANES)
    return next((size for size in sizes if -(-length // size) * size <= (1 + WASTE) * length), LANES)


def _pad(x: Array, block: int, value: int = 0) -> Array:
    """The second axis filled up to a multiple of `block`."""
    widths = [(0, 0), (0, -x.shape[1] % block)] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(x, widths, constant_values=value)
