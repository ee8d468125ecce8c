"""Every test runs with the array shapes of vidflow's public functions checked, on the CPU."""

import os
from pathlib import Path

# Before anything imports jax, which reads its environment once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "vidflow" / "xla"))

import jaxtyping  # noqa: E402

# Before anything imports vidflow, whose modules are checked as they are loaded.
jaxtyping.install_import_hook("vidflow", "beartype.beartype")
