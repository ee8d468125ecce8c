"""Who may attend to whom, said in two small arrays instead of an N x N one."""

from typing import Any

import flax.struct
from jaxtyping import Array, Bool, Int


@flax.struct.dataclass
class Mask:
    """Equal segments attend; segment 0 is padding and is never attended to.

    One video per row is the case of one segment; several packed into a row have segments 1, 2, ... Cross-attention
    masks the same way: a caption carries the segment of its video.

    Attributes:
      q_segment: [B, N] integers.
      kv_segment: [B, M] integers.
    """

    q_segment: Any
    kv_segment: Any


def allowed(q_segment: Int[Array, "B N"], kv_segment: Int[Array, "B M"]) -> Bool[Array, "B 1 N M"]:
    """The boolean form, for one block of queries and keys that a kernel holds at a time."""
    equal = q_segment[:, :, None] == kv_segment[:, None, :]
    return (equal & (kv_segment != 0)[:, None, :])[:, None]
