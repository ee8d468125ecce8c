"""Model FLOPs by closed formula: two per multiply-add of every matrix product, nothing else counted."""

from vidflow.models.design import MOVIE_GEN, Design
from vidflow.models.sizes import Size
from vidflow.text.byte_encoder import WORD

BACKWARD = 2  # a backward pass has two matrix products for each one of the forward pass


def transformer_forward(
    size: Size, *, tokens: int, text_tokens: int, text_width: int, features: int, design: Design = MOVIE_GEN
) -> int:
    """FLOPs of one forward pass of `models.dit.VideoTransformer` on one clip with one time.

    Args:
      size: of the model.
      tokens: spacetime patches of the clip.
      text_tokens, text_width: of the text.
      features: numbers in a patch of latents.
    """
    d = size.width
    read = text_tokens if design.text == "cross_attention" else 0
    read += design.time == "cross_attention"
    n = tokens + (text_tokens if design.text == "in_context" else 0) + (design.time == "in_context")
    projected = design.text == "in_context" or (design.text != "none" and design.time == "cross_attention")
    self_attention = n * 4 * d * d + 2 * n * n * d
    cross_attention = n * 2 * d * d + read * 2 * (d if projected else text_width) * d + 2 * n * read * d
    feed_forward = n * (3 if design.mlp == "swiglu" else 2) * d * size.feed_forward
    layer = self_attention + feed_forward + (cross_attention if design.attends_across else 0)
    modulation = design.vectors * d * d * (1 if design.shared else size.layers)
    time = 256 * d + d * d + modulation + (2 * d * d if design.vectors else 0)
    text = text_tokens * text_width * d if projected else 0
    return 2 * (size.layers * layer + tokens * 2 * d * features + time + text)


def byte_encoder_forward(*, width: int, layers: int, length: int, stride: int) -> int:
    """FLOPs of one forward pass of `text.byte_encoder.ByteEncoder` on one caption of `length` bytes."""
    tokens = length // stride
    words = length * WORD * width * width
    layer = tokens * 12 * width * width + 2 * tokens * tokens * width
    return 2 * (words + layers * layer)
