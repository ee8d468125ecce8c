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


def attend(
    q: Float[Array, "B N K head"],
    k: Float[Array, "B M K head"],
    v: Float[Array, "B M K head"],
    mask: Mask | None,
    label: str,
    interpret: bool = False,
) -> Float[Array, "B N K head"]:
    """See `vidflow.attention.attend.attend`; a query that sees nothing gets something finite.

    Lengths that 128 does not divide are padded with keys that none sees.
    `interpret` runs the kernel's program without a TPU, slowly: for tests.
    """
    length, dtype = q.shape[1], v.dtype
    aligned = length % LANES == 0 and k.shape[1] % LANES == 0
    segments = None
    if mask is not None or not aligned:
        q_segment, kv_segment = _segments(q, k, mask)
        # In splash equal numbers attend, so padding differs on the two sides.
        segments = splash.SegmentIds(_pad(jnp.where(q_segment == 0, -1, q_segment), -1), _pad(kv_segment))
    q, k, v = (_pad(x) for x in (q * q.shape[-1] ** -0.5, k, v))
    kernel = _kernel(q.shape[2], q.shape[1], k.shape[1], label, interpret)
    out = jax.vmap(kernel)(*(jnp.swapaxes(x, 1, 2) for x in (q, k, v)), segments)
    return jnp.swapaxes(out, 1, 2)[:, :length].astype(dtype)


def _segments(q: Array, k: Array, mask: Mask | None) -> tuple[Array, Array]:
    if mask is None:
        return jnp.ones(q.shape[:2], jnp.int32), jnp.ones(k.shape[:2], jnp.int32)
    if mask.relation == "all":
        return jnp.ones_like(mask.q_segment), (mask.kv_segment != 0).astype(jnp.int32)
    return mask.q_segment, mask.kv_segment


def _kernel(heads: int, queries: int, keys: int, label: str, interpret: bool) -> Callable[..., Array]:
    q_block, kv_block = _block(queries, QUERY_BLOCK), _block(keys, KEY_BLOCK)
    compute = _block(kv_block, COMPUTE_BLOCK)
    return splash.make_splash_mha(
        splash.MultiHeadMask([splash.FullMask((queries, keys))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=q_block,
            block_kv=kv_block,
            block_kv_compute=compute,
            block_q_dkv=q_block,
            block_kv_dkv=kv_block,
            block_kv_dkv_compute=compute,
            use_fused_bwd_kernel=True,
        ),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=label,
        interpret=interpret,
    )


def _block(length: int, most: int) -> int:
    """The largest multiple of `LANES` up to `most` that divides `length`."""
    return max(size for size in range(LANES, most + 1, LANES) if length % size == 0)


def _pad(x: Array, value: int = 0) -> Array:
    """The second axis filled up to a multiple of `LANES`."""
    widths = [(0, 0), (0, -x.shape[1] % LANES)] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(x, widths, constant_values=value)
