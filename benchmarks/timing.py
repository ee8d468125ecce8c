"""How long a call takes, and what follows from it."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

REPETITION = 0.1  # seconds of calls between two looks at the clock, beside which launching them counts for nothing
FEWEST, MOST = 3, 30  # repetitions


def repeat(run: Callable[[int], None], seconds: float) -> dict[str, float]:
    """Times `run(calls)`, which makes that many calls and waits for the last of them, for about `seconds`.

    The first call warms up; the second says how many calls make a repetition, and how many repetitions there is time
    for. Within a repetition nothing waits for the device.

    Returns:
      ms: milliseconds of one call, the median over repetitions.
      ms_iqr: its interquartile range over repetitions.
      repetitions, calls: how many, and the calls in each.
      first_ms: of the first call, with whatever had to be compiled or loaded for it.
    """
    warm_up, once = _seconds(run, 1), _seconds(run, 1)
    calls = max(1, math.ceil(REPETITION / once))
    repetitions = min(MOST, max(FEWEST, round(seconds / (calls * once))))
    times = [1000 * _seconds(run, calls) / calls for _ in range(repetitions)]
    first, median, third = statistics.quantiles(times, n=4, method="inclusive")
    result = {"ms": median, "ms_iqr": third - first, "repetitions": repetitions, "calls": calls}
    return result | {"first_ms": 1000 * warm_up}


def rates(flops: float, ms: float, device: str) -> dict[str, float | None]:
    """Model FLOPs of one call, its TFLOP/s, and the percentage of the device's bf16 peak that this is.

    The percentage is None where `vidflow.parallel.devices` does not know the device.
    """
    from vidflow.parallel.devices import PEAK_BF16_FLOPS

    rate, peak = 1000 * flops / ms, PEAK_BF16_FLOPS.get(device)
    return {
        "flops": flops,
        "tflops_per_second": rate / 1e12,
        "percent_of_peak": None if peak is None else 100 * rate / peak,
    }


def jax_memory(compiled: Any) -> dict[str, Any]:
    """What a compiled program needs, and the most that this process has held on the device.

    Returns:
      program_bytes: arguments, results and temporaries of the program, by its compiler; None where it does not say.
      peak_bytes: of the allocator where it counts (GPU, TPU), else `program_bytes`.
      peak_of: which of the two it is, "allocator" or "program".
    """
    import jax

    program, stats = compiled.memory_analysis(), jax.devices()[0].memory_stats() or {}
    needs = None
    if program is not None:
        needs = program.argument_size_in_bytes + program.output_size_in_bytes + program.temp_size_in_bytes
        needs -= program.alias_size_in_bytes  # donated arguments that are results too
    peak = stats.get("peak_bytes_in_use")
    return {
        "program_bytes": needs,
        "peak_bytes": peak or needs,
        "peak_of": "allocator" if peak else "program",
    }


def torch_memory() -> dict[str, Any]:
    """The most that this process has held on the GPU; nothing on a CPU, where torch does not count."""
    import torch

    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {"program_bytes": None, "peak_bytes": peak, "peak_of": "allocator"}


def _seconds(run: Callable[[int], None], calls: int) -> float:
    start = time.perf_counter()
    run(calls)
    return time.perf_counter() - start
