"""What every verb does to its process before it imports jax."""

import logging
import os
from pathlib import Path


def start() -> None:
    """Sets up logging and keeps compiled programs on disk, so that the second run of a program starts at once."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("jax", "absl", "orbax", "grain"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vidflow" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
