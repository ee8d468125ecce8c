"""How one device computes attention."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Kernel(NamedTuple):
    """One way to compute attention on what one device holds.

    Attributes:
      attend: (q, k, v, mask or None, label) -> result in the dtype of v; differentiable. What the backward pass needs
        besides q, k and v is given the name `label` (`jax.ad_checkpoint.checkpoint_name`); by cuDNN's, and by XLA's
        while it is dense, nothing is, and rematerialisation computes all of it again.
      relations: those of `Mask` that it serves.
      zeros: whether a query that sees nothing gets zeros; if not, `attend` sees to it.
      platform: of the devices that it is for, as JAX names it; None: any.
      forward, backward: as in `kernels.xla`, for strategies that see the keys block by block; None if it has no such.
    """

    attend: Callable[..., Any]
    relations: tuple[str, ...]
    zeros: bool = False
    platform: str | None = None
    forward: Callable[..., Any] | None = None
    backward: Callable[..., Any] | None = None
