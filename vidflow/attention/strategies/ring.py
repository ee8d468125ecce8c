"""Ring attention: keys and values travel around, one block at a time (Liu et al. 2023, arXiv:2310.01889).

Beside its own keys no device holds more than two blocks of them. The result is put together with the log-sum-exp of
each block's logits (online softmax); the backward pass sends keys, values and their gradients around once more and
recomputes each block's weights from the final log-sum-exp, so nothing of size N is kept but queries, keys, values and
the result.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from vidflow.attention.kernels import Kernel
from vidflow.attention.mask import Mask
from vidflow.attention.strategies.groups import Groups

Part = Float[Array, "B N K head"]
RowSums = Float[Array, "B K N"]


def attend(q: Part, k: Part, v: Part, mask: Mask | None, groups: Groups, kernel: Kernel, label: str) -> Part:
    """Every device attends its own queries to the keys as they pass; a step's transfer overlaps its compute."""
    return _ring(groups, kernel, label, q, k, v, mask)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _ring(groups: Groups, kernel: Kernel, label: str, q: Part, k: Part, v: Part, mask: Mask | None) -> Part:
    return _forward(groups, kernel, label, q, k, v, mask)[0]


def _forward(
    groups: Groups, kernel: Kernel, label: str, q: Part, k: Part, v: Part, mask: Mask | None
) -> tuple[Part, tuple]:
    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        passing, total = carry
        following = jax.tree.map(groups.to_next_row, passing)
        return (following, _merge(total, kernel.forward(q, *_with_keys(mask, passing)))), None

    passing = (k, v, None if mask is None else mask.kv_segment)
    total = (jnp.zeros(q.shape, jnp.float32), jnp.full((q.shape[0], q.shape[2], q.shape[1]), -jnp.inf))
    (passing, total), _ = jax.lax.scan(step, (passing, total), length=groups.outer - 1)
    out, row_sums = _merge(total, kernel.forward(q, *_with_keys(mask, passing)))
    out, row_sums = checkpoint_name((out.astype(v.dtype), row_sums), label)
    return out, (q, k, v, mask, out, row_sums)


def _backward(groups: Groups, kernel: Kernel, label: str, saved: tuple, g: Part) -> tuple:
    q, k, v, mask, out, row_sums = saved

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        passing, dq, dk, dv = carry
        here = kernel.backward(q, *_with_keys(mask, passing), out, row_sums, g)
        following = jax.tree.map(groups.to_next_row, passing)
        dk, dv = groups.to_next_row(dk + here[1]), groups.to_next_row(dv + here[2])
        return (following, dq + here[0], dk, dv), None

    passing = (k, v, None if mask is None else mask.kv_segment)
    zeros = [jnp.zeros(x.shape, jnp.float32) for x in (q, k, v)]
    (_, dq, dk, dv), _ = jax.lax.scan(step, (passing, *zeros), length=groups.outer)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


_ring.defvjp(_forward, _backward)


def _with_keys(mask: Mask | None, passing: tuple) -> tuple:
    """(k, v, mask) of the block that is here now."""
    k, v, segment = passing
    return k, v, None if mask is None else mask.replace(kv_segment=segment)


def _merge(total: tuple[Part, RowSums], block: tuple[Part, RowSums]) -> tuple[Part, RowSums]:
    """Attention over the union of two sets of keys, from that over each and their log-sum-exps."""
    row_sums = jnp.logaddexp(total[1], block[1])
    weights = [jnp.exp(part[1] - row_sums).swapaxes(1, 2)[..., None] for part in (total, block)]
    return total[0] * weights[0] + block[0] * weights[1], row_sums
