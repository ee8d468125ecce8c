"""The choices that make one diffusion transformer another: every row of an ablation is one field."""

from typing import Literal, NamedTuple, get_args, get_type_hints

from ml_collections import ConfigDict

from vidflow.config import nearest
from vidflow.errors import UsageError


class Design(NamedTuple):
    """What a block is made of.

    Attributes:
      norm: "rms" with a learned scale, or "layer", which has none where time modulates (DiT's).
      mlp: "swiglu" of three matrices, or "gelu" of two.
      bias: whether projections have one.
      time: how flow time and class enter the layers (Peebles and Xie 2023, section 3.2):
        "adaln_zero"       shift and scale after each norm, and a gate at zero that makes a new layer the identity
        "adaln"            shift and scale alone
        "in_context"       as further tokens of the video's sequence
        "cross_attention"  as tokens that the video attends to, beside the text
      shared: whether one projection of the time serves all layers, each adding a table of its own (PixArt-alpha's
        adaLN-single, Movie Gen), or every layer has a projection.
      text: "cross_attention", "in_context" (as further tokens of the video's sequence), or "none".
      positions: learned tables for time, height and width, added up, at the entry of every layer ("every", Movie Gen)
        or of the first ("first"); fixed waves at the first ("waves", DiT); or rotations of queries and keys ("rotary").
      qk_norm: whether queries and keys are normalised within each head (Esser et al. 2024, section 5.3.2).
    """

    norm: Literal["rms", "layer"] = "rms"
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    bias: bool = False
    time: Literal["adaln_zero", "adaln", "in_context", "cross_attention"] = "adaln_zero"
    shared: bool = True
    text: Literal["cross_attention", "in_context", "none"] = "cross_attention"
    positions: Literal["every", "first", "waves", "rotary"] = "every"
    qk_norm: bool = False

    @property
    def vectors(self) -> int:
        """Modulation vectors of a layer: shift, scale and gate for attention and for the feed-forward."""
        return {"adaln_zero": 6, "adaln": 4}.get(self.time, 0)

    @property
    def learns_positions(self) -> bool:
        return self.positions in ("every", "first")

    @property
    def attends_across(self) -> bool:
        """Whether a layer has a second attention, to what is not of the video."""
        return "cross_attention" in (self.text, self.time)


MOVIE_GEN = Design()
DIT = Design(norm="layer", mlp="gelu", bias=True, shared=False, text="none", positions="waves")


def of(config: ConfigDict) -> Design:
    """The design that a config's fields say. One that it lacks, because it is older than the field, is Movie Gen's.

    Raises:
      UsageError: a field that there is not, or a word that a field does not know.
    """
    if unknown := [name for name in config if name not in Design._fields]:
        raise UsageError(
            f"Unknown config.model.design.{unknown[0]}; did you mean '{nearest(unknown[0], Design._fields)}'? There "
            f"are {', '.join(Design._fields)}."
        )
    said = {name: config[name] for name in Design._fields if name in config}
    for name, kind in get_type_hints(Design).items():
        words = get_args(kind)
        if words and said.get(name, words[0]) not in words:
            raise UsageError(
                f"Unknown config.model.design.{name} '{said[name]}'; did you mean '{nearest(said[name], words)}'? "
                f"There are {', '.join(words)}."
            )
    return Design(**said)
