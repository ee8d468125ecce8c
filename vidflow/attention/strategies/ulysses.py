"""Ulysses: tokens for heads and back (Jacobs et al. 2023, arXiv:2309.14509)."""

from collections.abc import Callable

from jaxtyping import Array, Float

from vidflow.attention.mask import Mask
from vidflow.attention.strategies.groups import Groups

TOKENS, HEADS = 1, 2
Part = Float[Array, "B N K head"]
Attend = Callable[[Part, Part, Part, Mask | None], Part]


def attend(q: Part, k: Part, v: Part, mask: Mask | None, groups: Groups, within: Attend) -> Part:
    """All-to-all so that a device holds the whole row's tokens of K / inner heads, `within`, and back.

    A device sends (inner - 1) / inner of its part of q, k, v and the result, each of N K head elements: less than
    4 N K head, however large `inner` is.
    """
    if groups.inner == 1:
        return within(q, k, v, mask)
    q, k, v = (groups.exchange(x, HEADS, TOKENS) for x in (q, k, v))
    if mask is not None:
        segments = (groups.gather_columns(x) for x in (mask.q_segment, mask.kv_segment))
        mask = Mask(*segments, relation=mask.relation)
    return groups.exchange(within(q, k, v, mask), TOKENS, HEADS)
