"""vidflow: research on text-to-video generation in JAX, from pixels to pods."""

__version__ = "0.1.0"
