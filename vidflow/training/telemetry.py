"""What a run says while it runs: metrics.jsonl, TensorBoard events, a progress bar.

Metrics stay on the device until `flush`, so logging never makes a step wait for the one before it. Every process
fetches them and stops at a loss that is not finite; only the first writes and shows them.
"""

import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from vidflow import files
from vidflow.errors import UsageError
from vidflow.training import hosts


class Telemetry:
    """Writes one line of metrics.jsonl a step, in batches of `every` steps."""

    def __init__(
        self, folder: Path, *, start: int, steps: int, every: int, rows: int, flops: float, peak: float | None
    ) -> None:
        """`start` is the step resumed from: later lines, of steps that will run again, are dropped.

        `rows` is the global batch size, `flops` the model FLOPs of one step, `peak` the peak FLOP/s of all devices
        together or None where it is not known.
        """
        writes = hosts.is_first()
        self._file = _truncate(folder / "metrics.jsonl", start) if writes else open(os.devnull, "a")
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=start, write_to_disk=writes)
        self._bar = tqdm(
            total=steps, initial=start, unit="step", dynamic_ncols=True, desc=folder.name, disable=not writes
        )
        self._every, self._rows, self._flops, self._peak = every, rows, flops, peak
        self._waiting: list[tuple[int, Any]] = []
        self._last: dict[str, float | None] = {}  # the last line written
        self._clock = time.perf_counter()

    def step(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of `step` (counted from 0)."""
        self._waiting.append((step, metrics))
        if len(self._waiting) >= self._every:
            self.flush()

    def flush(self) -> None:
        """Fetches the waiting metrics and writes them.

        Raises:
          UsageError: a loss that is not finite, naming the step; nothing after it is trusted.
        """
        if not self._waiting:
            return
        rows = [(step, jax.tree.map(np.asarray, metrics)) for step, metrics in self._waiting]
        seconds = (time.perf_counter() - self._clock) / len(rows)
        self._clock = time.perf_counter()
        for step, metrics in rows:
            line = {"step": step, **_flat(metrics), **self._speed(seconds)}
            self._file.write(json.dumps(line) + "\n")
            self._last = line
            for name, value in line.items():
                if name != "step" and value is not None:
                    self._events.add_scalar(name, value, step)
        self._file.flush()
        self._bar.update(len(rows))
        last = float(rows[-1][1]["loss"])
        self._bar.set_postfix(loss=f"{last:.4f}", refresh=False)
        self._waiting.clear()
        for step, metrics in rows:
            if not math.isfinite(metrics["loss"]):
                raise UsageError(
                    f"The loss is {float(metrics['loss'])} at step {step}: lower config.optimizer.learning_rate, or "
                    "look at the data of that step; the last checkpoint is kept."
                )

    def pause(self) -> None:
        """Leaves the time since the last flush out of the next throughput."""
        self._clock = time.perf_counter()

    def close(self) -> None:
        """Writes what waits, and the speed of the last steps to the log."""
        self.flush()
        self._bar.close()
        if self._last:
            peak = self._last["percent_of_peak"]
            logging.info(
                "%.1f clips/s, %.4g model TFLOP/s, %s of the peak of this device",
                self._last["clips_per_second"],
                self._last["model_tflops_per_second"],
                "an unknown share" if peak is None else f"{peak:.1f}%",
            )
        self._file.close()
        self._events.close()

    def _speed(self, seconds: float) -> dict[str, float | None]:
        rate = self._flops / seconds
        return {
            "seconds_per_step": round(seconds, 6),
            "clips_per_second": round(self._rows / seconds, 3),
            "model_tflops_per_second": round(rate / 1e12, 6),
            "percent_of_peak": None if self._peak is None else round(100 * rate / self._peak, 3),
        }


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line cut short by a kill is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def _truncate(path: Path, start: int) -> Any:
    """The file, open for appending, with the lines of steps before `start` only."""
    kept = [line for line in read_metrics(path.parent) if line["step"] < start]
    files.write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))
    return path.open("a", encoding="utf-8")


def _flat(metrics: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Scalars by name; a vector becomes name/0, name/1, ...; a value that is not a number becomes null."""
    flat = {}
    for name, value in metrics.items():
        if value.ndim == 0:
            flat[name] = float(value)
        else:
            flat.update({f"{name}/{index}": float(x) for index, x in enumerate(value)})
    return {name: value if math.isfinite(value) else None for name, value in flat.items()}
