"""Model FLOPs by closed formula: two per multiply-add of every matrix product, nothing else counted."""

from vidflow.models.sizes import Size
from vidflow.text.byte_encoder import WORD

BACKWARD = 2  # a backward pass has two matrix products for each one of the forward pass


def transformer_forward(size: Size, *, tokens: int, text_tokens: int, text_width: int, features: int) -> int:
    """FLOPs of one forward pass of `models.dit.VideoTransformer` on one clip.

    Args:
      size: of the model.
      tokens: spacetime patches N of the clip.
      text_tokens, text_width: of the text that cross-attention reads.
      features: numbers in a patch of latents.
    """
    d, n, text = size.width, tokens, text_tokens
    self_attention = n * 4 * d * d + 2 * n * n * d
    cross_attention = n * 2 * d * d + text * 2 * text_width * d + 2 * n * text * d
    feed_forward = n * 3 * d * size.feed_forward
    patches = n * 2 * d * features
    time = 256 * d + d * d + 8 * d * d  # one time per clip: the embedding, then 6 + 2 modulation vectors
    return 2 * (size.layers * (self_attention + cross_attention + feed_forward) + patches + time)


def byte_encoder_forward(*, width: int, layers: int, length: int, stride: int) -> int:
    """FLOPs of one forward pass of `text.byte_encoder.ByteEncoder` on one caption of `length` bytes."""
    tokens = length // stride
    words = length * WORD * width * width
    layer = tokens * 12 * width * width + 2 * tokens * tokens * width
    return 2 * (words + layers * layer)
