"""Keys and values gathered, queries stay (Movie Gen, section 3.1.6: 'context parallelism')."""

from jaxtyping import Array, Float

from vidflow.attention.kernels import Kernel
from vidflow.attention.mask import Mask
from vidflow.attention.strategies.groups import Groups

Part = Float[Array, "B N K head"]


def attend(q: Part, k: Part, v: Part, mask: Mask | None, groups: Groups, kernel: Kernel, label: str) -> Part:
    """Every device attends its own queries to all keys. Gathered here, not on entry: the gradients of keys and values
    then leave by reduce-scatter instead of a full-size all-reduce."""
    k, v = groups.gather_rows(k), groups.gather_rows(v)
    if mask is not None:
        mask = mask.replace(kv_segment=groups.gather_rows(mask.kv_segment))
    return kernel.attend(q, k, v, mask, label)
