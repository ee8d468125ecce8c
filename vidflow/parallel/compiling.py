"""With which options programs are compiled, for each kind of device."""

from functools import cache
from typing import Any

import jax

from vidflow.parallel.topologies import GENERATIONS

# Convolutions and products by Eigen, not by YNNPACK, which is up to five times as slow in convolutions on a CPU with
# AVX-512 (benchmarks/RESULTS.md) and no faster in products; its reductions are faster than XLA's.
ON_CPU = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def options(device: Any) -> dict[str, str]:
    """Of `jax.jit`, for a program of its own, as a step of training is: a function that others differentiate or compile
    as a part of theirs cannot have any.

    Args:
      device: with a `device_kind`; of a real one or of a topology.
    """
    if device.device_kind == "cpu":
        return {name: value for name, value in ON_CPU.items() if _understood(name, value)}
    by_kind = {chip.device_kind: chip.compiler_options for chip in GENERATIONS.values()}
    return by_kind.get(device.device_kind, {})


@cache
def _understood(name: str, value: str) -> bool:
    """Whether the installed compiler, which may be newer than these lines, has that option and value."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
