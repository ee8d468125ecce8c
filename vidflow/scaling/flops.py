"""Model FLOPs by closed formula: two per multiply-add of every matrix product, nothing else counted."""

from typing import NamedTuple

from vidflow.models.design import MOVIE_GEN, Design
from vidflow.models.sizes import Size
from vidflow.text.byte_encoder import WORD

BACKWARD = 2  # a backward pass has two matrix products for each one of the forward pass


class Parts(NamedTuple):
    """FLOPs of one forward pass of `models.dit.VideoTransformer`.

    Attributes:
      attention: scores and weighted sums of self-attention, the part that is quadratic in tokens.
      projections: queries, keys, values and outputs of self-attention.
      cross_attention: all of it.
      feed_forward: all of it.
      modulation: of flow time, from its waves to the last layer's shift and scale.
      patches: into the first layer and out of the last.
      text: the projection to the width of the model, where a design has one.
    """

    attention: int
    projections: int
    cross_attention: int
    feed_forward: int
    modulation: int
    patches: int
    text: int


def transformer(
    size: Size,
    *,
    tokens: int,
    text_tokens: int,
    text_width: int,
    features: int,
    design: Design = MOVIE_GEN,
    variance: bool = False,
) -> Parts:
    """Of one clip with one time.

    Args:
      size: of the model.
      tokens: spacetime patches of the clip.
      text_tokens, text_width: of the text.
      features: numbers in a patch of latents.
      variance: as the model has it.
    """
    d = size.width
    read = text_tokens if design.text == "cross_attention" else 0
    read += design.time == "cross_attention"
    n = tokens + (text_tokens if design.text == "in_context" else 0) + (design.time == "in_context")
    projected = design.text == "in_context" or (design.text != "none" and design.time == "cross_attention")
    read_width = d if projected or design.text == "none" else text_width  # the time's, where there is no text
    cross_attention = n * 2 * d * d + read * 2 * read_width * d + 2 * n * read * d
    vectors = design.vectors * d * d * (1 if design.shared else size.layers)
    multiply_adds = Parts(
        attention=size.layers * 2 * n * n * d,
        projections=size.layers * n * 4 * d * d,
        cross_attention=size.layers * cross_attention if design.attends_across else 0,
        feed_forward=size.layers * n * (3 if design.mlp == "swiglu" else 2) * d * size.feed_forward,
        modulation=256 * d + d * d + vectors + (2 * d * d if design.vectors else 0),
        patches=tokens * (3 if variance else 2) * d * features,
        text=text_tokens * text_width * d if projected else 0,
    )
    return Parts(*(2 * part for part in multiply_adds))


def byte_encoder_forward(*, width: int, layers: int, length: int, stride: int) -> int:
    """FLOPs of one forward pass of `text.byte_encoder.ByteEncoder` on one caption of `length` bytes."""
    tokens = length // stride
    words = (length * WORD - WORD * (WORD - 1) // 2) * width * width  # before the first byte there is nothing to read
    layer = tokens * 12 * width * width + 2 * tokens * tokens * width
    return 2 * (words + layers * layer)
