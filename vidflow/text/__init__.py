"""Prompts to tokens: tokenizers and text encoders."""

from vidflow.text.pretrained import TextEncoder, load_encoder

__all__ = ["TextEncoder", "load_encoder"]
