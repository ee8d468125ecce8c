"""A text encoder and a velocity network as one module with one parameter tree."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vidflow.models.conditioning import Conditioning
from vidflow.models.dit import Output, VideoTransformer
from vidflow.typing import Latents


class TextToVideo(nn.Module):
    """Prompts are encoded once by `encode_text`; `predict` is then called at every solver step.

    Attributes:
      text: a module that maps the text of a batch, a tree of arrays, to (tokens [B, L, D], segment [B, L]).
      backbone: the network that says what the target of the flow asks for.
    """

    text: nn.Module
    backbone: VideoTransformer

    def encode_text(self, text: Any) -> Conditioning:
        tokens, segment = self.text(text)
        return Conditioning(tokens, segment)

    def predict(self, latents: Latents, t: Float[Array, "B ..."], conditioning: Conditioning) -> Output:
        return self.backbone(latents, t, conditioning)

    def __call__(self, latents: Latents, t: Float[Array, "B ..."], text: Any) -> Output:
        return self.predict(latents, t, self.encode_text(text))
