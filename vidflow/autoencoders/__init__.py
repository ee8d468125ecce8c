"""Pixels to latents and back."""

from vidflow.autoencoders.pretrained import Pretrained, load

__all__ = ["Pretrained", "load"]
