"""The one attention function of the code base."""

import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from vidflow.attention.kernels import Kernel, cudnn, splash, xla
from vidflow.attention.mask import Mask, allowed
from vidflow.attention.strategies import allgather, ring, ulysses
from vidflow.attention.strategies.groups import Groups
from vidflow.axes import BATCH, SEQUENCE, TENSOR
from vidflow.errors import UsageError

KERNELS = {
    "xla": Kernel(
        xla.attend, ("same", "earlier", "real", "all"), zeros=True, forward=xla.forward, backward=xla.backward
    ),
    "splash": Kernel(splash.attend, ("same", "real", "all"), platform="tpu"),
    "cudnn": Kernel(cudnn.attend, ("real", "all"), platform="gpu"),
}
# How tokens are shared between devices: heads exchanged between neighbours or not, then keys between their rows.
STRATEGIES = {
    "local": (False, None),
    "allgather": (False, allgather),
    "ulysses": (True, None),
    "ring": (False, ring),
    "usp": (True, ring),
    "ulysses_allgather": (True, allgather),
}


def attend(
    q: Float[Array, "B N K head"],
    k: Float[Array, "B M K head"],
    v: Float[Array, "B M K head"],
    mask: Mask | None = None,
    *,
    kernel: str = "xla",
    strategy: str | None = None,
    label: str = "attention",
) -> Float[Array, "B N K head"]:
    """softmax(q k^T / sqrt(head)) v under `mask`; statistics in float32, result in the dtype of v.

    With a strategy and an ambient mesh (`jax.set_mesh`) of more than one device, rows are shared over `data` and
    `fsdp`, tokens over `sequence`, heads over `tensor`, and devices exchange what the strategy says:

      local              nothing; every device holds all keys (short ones, such as text)
      allgather          keys and values (Movie Gen)
      ulysses            tokens for heads (Jacobs et al. 2023)
      ring               keys and values, a block at a time (Liu et al. 2023)
      usp                Ulysses between as many as heads divide over, ring between the rest (Fang et al. 2024)
      ulysses_allgather  the same with an all-gather between the rest

    Args:
      q, k, v: queries, keys, values, heads apart.
      mask: who sees whom; None lets all see all. A query that may see nothing gets zeros.
      kernel: how one device computes it, a key of `KERNELS`.
      strategy: a key of `STRATEGIES`; None leaves the arrays to the compiler.
      label: name of the kernel's residuals of the backward pass, for rematerialisation to save or not; what the kernel
        is given, after any exchange of heads, is `label`_inputs, the final result `label`_output.

    Raises:
      UsageError: an unknown kernel or strategy, a pair that cannot be, a mask that the kernel does not serve, or sizes
        that do not divide over the mesh.
    """
    chosen = _check(kernel, strategy, mask)
    mesh = jax.sharding.get_abstract_mesh()
    if strategy is None or mesh.empty or mesh.size == 1:
        q, k, v = checkpoint_name((q, k, v), f"{label}_inputs")
        return checkpoint_name(_blanked(chosen.attend(q, k, v, mask, label), mask, chosen), f"{label}_output")

    sizes = {axis: mesh.shape[axis] for axis in (*BATCH, SEQUENCE, TENSOR)}
    _check_sizes(q.shape, None if strategy == "local" else k.shape[1], sizes)
    exchange, between = STRATEGIES[strategy]
    groups = _groups(strategy, sizes[SEQUENCE], q.shape[2] // sizes[TENSOR])

    def on_one_device(q: Array, k: Array, v: Array, mask: Mask | None) -> Array:
        def within(q: Array, k: Array, v: Array, mask: Mask | None) -> Array:
            q, k, v = checkpoint_name((q, k, v), f"{label}_inputs")
            if between is None or groups.outer == 1:
                return chosen.attend(q, k, v, mask, label)
            return between.attend(q, k, v, mask, groups, chosen, label)

        return ulysses.attend(q, k, v, mask, groups, within) if exchange else within(q, k, v, mask)

    queries, keys = P(BATCH, SEQUENCE, TENSOR), P(BATCH, None if strategy == "local" else SEQUENCE, TENSOR)
    masks = None if mask is None else Mask(P(*queries[:2]), P(*keys[:2]), relation=mask.relation)
    shared = jax.shard_map(on_one_device, in_specs=(queries, keys, keys, masks), out_specs=queries, check_vma=False)
    return checkpoint_name(_blanked(shared(q, k, v, mask), mask, chosen), f"{label}_output")


def runs_on(kernel: str, platform: str) -> bool:
    """Whether devices of that platform ("cpu", "gpu", "tpu") have a kernel."""
    return KERNELS[kernel].platform in (None, platform)


def check(kernel: str, strategy: str | None, platform: str) -> None:
    """What can be told of a choice before anything is traced.

    Raises:
      UsageError: an unknown kernel or strategy, a pair that cannot be, or a kernel that these devices have not.
    """
    _check(kernel, strategy, None)
    if not runs_on(kernel, platform):
        raise UsageError(
            f"The attention kernel '{kernel}' is for devices of JAX's platform '{KERNELS[kernel].platform}', and these "
            f"are '{platform}': set config.model.kernel = 'xla'."
        )


def _blanked(out: Float[Array, "B N K head"], mask: Mask | None, kernel: Kernel) -> Float[Array, "B N K head"]:
    """Zeros for the queries that see nothing, if the kernel has not seen to it."""
    if mask is None or kernel.zeros:
        return out
    sees = mask.q_segment != 0
    if mask.q_segment is not mask.kv_segment:  # in self-attention a query sees at least itself
        sees = sees & allowed(mask)[:, 0].any(axis=-1)  # one fused comparison and reduction, no N x M array
    return jnp.where(sees[..., None, None], out, 0)


def _groups(strategy: str, sequence: int, heads: int) -> Groups:
    """How many neighbours exchange heads, and how many rows of them there are."""
    if not STRATEGIES[strategy][0]:
        return Groups(outer=sequence, inner=1)
    if strategy == "ulysses":
        if heads % sequence:
            raise UsageError(
                f"Ulysses cannot spread {heads} heads (a device's share of the tensor axis) over config.mesh.sequence"
                f" = {sequence}: use one of {_divisors(heads)}, or config.model.strategy = 'usp'."
            )
        return Groups(outer=1, inner=sequence)
    inner = math.gcd(sequence, heads)
    return Groups(outer=sequence // inner, inner=inner)


def _check(kernel: str, strategy: str | None, mask: Mask | None) -> Kernel:
    if kernel not in KERNELS:
        raise UsageError(f"Unknown attention kernel '{kernel}' in config.model.kernel: use one of {sorted(KERNELS)}.")
    if strategy is not None and strategy not in STRATEGIES:
        raise UsageError(
            f"Unknown attention strategy '{strategy}' in config.model.strategy: use one of {sorted(STRATEGIES)}."
        )
    chosen = KERNELS[kernel]
    if strategy in ("ring", "usp") and chosen.forward is None:
        able = sorted(name for name, other in KERNELS.items() if other.forward is not None)
        raise UsageError(
            f"The strategy '{strategy}' sees the keys block by block, which the kernel '{kernel}' does not offer: use "
            f"one of {able}, or the strategy 'ulysses_allgather'."
        )
    if mask is not None and mask.relation not in chosen.relations:
        able = sorted(name for name, other in KERNELS.items() if mask.relation in other.relations)
        raise UsageError(
            f"The kernel '{kernel}' does not serve masks of the relation '{mask.relation}': use one of {able}."
        )
    return chosen


def _check_sizes(q: tuple[int, ...], keys: int | None, sizes: dict[str, int]) -> None:
    """Whether rows, tokens and heads divide over their axes."""
    rows = math.prod(sizes[axis] for axis in BATCH)
    parts = [("rows", q[0], "data x fsdp", rows), ("tokens", q[1], SEQUENCE, sizes[SEQUENCE])]
    parts += [("heads", q[2], TENSOR, sizes[TENSOR])]
    if keys is not None:
        parts += [("keys", keys, SEQUENCE, sizes[SEQUENCE])]
    for name, number, axis, size in parts:
        if number % size:
            raise UsageError(
                f"Attention over {number} {name} does not divide over the mesh axis {axis} of {size}: use one of "
                f"{_divisors(number)}."
            )


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)
