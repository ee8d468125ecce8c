"""A text encoder and a velocity network as one module with one parameter tree."""

import flax.linen as nn
from jaxtyping import Array, Float

from vidflow.models.conditioning import Conditioning
from vidflow.models.dit import Output, VideoTransformer
from vidflow.text.byte_encoder import ByteEncoder
from vidflow.typing import Latents, TokenIds


class TextToVideo(nn.Module):
    """Prompts are encoded once by `encode_text`; `velocity` is then called at every solver step."""

    text: ByteEncoder
    backbone: VideoTransformer

    def encode_text(self, ids: TokenIds) -> Conditioning:
        tokens, segment = self.text(ids)
        return Conditioning(tokens, segment)

    def velocity(self, latents: Latents, t: Float[Array, "B ..."], conditioning: Conditioning) -> Output:
        return self.backbone(latents, t, conditioning)

    def __call__(self, latents: Latents, t: Float[Array, "B ..."], ids: TokenIds) -> Output:
        return self.velocity(latents, t, self.encode_text(ids))
