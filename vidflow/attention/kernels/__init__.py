"""How one device computes attention."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Kernel(NamedTuple):
    """One way to compute attention on what one device holds.

    Attributes:
      attend: (q, k, v, mask or None) -> result in the dtype of v; differentiable.
      relations: those of `Mask` that it serves.
      forward, backward: as in `kernels.xla`, for strategies that see the keys block by block; None if it has no such.
    """

    attend: Callable[..., Any]
    relations: tuple[str, ...]
    forward: Callable[..., Any] | None = None
    backward: Callable[..., Any] | None = None
