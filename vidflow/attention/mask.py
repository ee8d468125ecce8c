"""Who may attend to whom, said in two small arrays and a word instead of an N x N array."""

from typing import Any, Literal

import flax.struct
from jaxtyping import Array, Bool, Int

Relation = Literal["same", "earlier", "real", "all"]
ORDERS = 2**16  # of the relation "earlier": a segment is pack * ORDERS + order, pack from 1


@flax.struct.dataclass
class Mask:
    """Which keys a query sees, by the segment of both. Segment 0 is padding: it sees nothing and is seen by none.

    Relations:
      same: keys of the query's own segment. One video per row is the case of one segment; several packed into a
        row have segments 1, 2, ... A caption carries the segment of its video.
      earlier: keys of the query's pack whose order is not later: causal over frames or scenes (see `ORDERS`).
      real: every real key.
      all: the same, and callers promise that padding stands at the end, so that lengths say everything.

    Attributes:
      q_segment: [B, N] integers.
      kv_segment: [B, M] integers.
    """

    q_segment: Any
    kv_segment: Any
    relation: Relation = flax.struct.field(pytree_node=False, default="same")


def allowed(mask: Mask) -> Bool[Array, "B 1 N M"]:
    """The boolean form, for one block of queries and keys that a kernel holds at a time."""
    q: Int[Array, "B N 1"] = mask.q_segment[:, :, None]
    kv: Int[Array, "B 1 M"] = mask.kv_segment[:, None, :]
    may = (q != 0) & (kv != 0)
    if mask.relation == "same":
        may = may & (q == kv)
    elif mask.relation == "earlier":
        may = may & (q // ORDERS == kv // ORDERS) & (kv <= q)
    return may[:, None]
