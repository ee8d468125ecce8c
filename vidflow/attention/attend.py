"""The one attention function of the code base."""

from jaxtyping import Array, Float

from vidflow.attention.kernels import xla
from vidflow.attention.mask import Mask
from vidflow.errors import UsageError

KERNELS = {"xla": xla.attend}


def attend(
    q: Float[Array, "B N K head"],
    k: Float[Array, "B M K head"],
    v: Float[Array, "B M K head"],
    mask: Mask | None = None,
    *,
    kernel: str = "xla",
) -> Float[Array, "B N K head"]:
    """softmax(q k^T / sqrt(head)) v under `mask`; statistics in float32, result in the dtype of v.

    Args:
      q, k, v: queries, keys, values, heads apart.
      mask: which segments see each other; None lets all see all. A query that may see nothing gets zeros.
      kernel: how one device computes it, a key of `KERNELS`.

    Raises:
      UsageError: an unknown kernel.
    """
    if kernel not in KERNELS:
        raise UsageError(f"Unknown attention kernel '{kernel}' in config.model.kernel: use one of {sorted(KERNELS)}.")
    return KERNELS[kernel](q, k, v, mask)
