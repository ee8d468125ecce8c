"""Prompts to tokens: tokenizers and text encoders."""
