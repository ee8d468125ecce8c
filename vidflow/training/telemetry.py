"""What a run says while it runs: metrics.jsonl, TensorBoard events, a progress bar.

Metrics stay on the device until `flush`, so logging never makes a step wait for the one before it. Every process
fetches them and stops when too many steps in a row were skipped; only the first writes and shows them.
"""

import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from vidflow.errors import UsageError
from vidflow.training import hosts

SHOWN = 16  # examples named in an error


class Telemetry:
    """Writes one line of metrics.jsonl a step, in batches of `every` steps."""

    def __init__(
        self,
        folder: Path,
        *,
        start: int,
        steps: int,
        every: int,
        window: int,
        rows: int,
        flops: float,
        peak: float | None,
        max_skips: int,
        examples: Callable[[int], Sequence[int]],
    ) -> None:
        """Of the run in `folder`, whose metrics are fetched `every` so many steps.

        Args:
          start: the step resumed from: later lines, of steps that will run again, are dropped.
          rows: the global batch size.
          flops: model FLOPs of one step.
          window: steps that `mean` looks back.
          peak: FLOP/s of all devices together, or None where it is not known.
          max_skips: skipped steps in a row that stop the run.
          examples: step -> the indices of its examples in the data, for the sentence that is said then.
        """
        writes = hosts.is_first()
        path = folder / "metrics.jsonl"
        kept = takewhile(lambda line: line["step"] < start, _lines(path))
        self._recent = deque(kept, maxlen=window)
        self._file = _cut(path, start) if writes else open(os.devnull, "a")
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=start, write_to_disk=writes)
        self._bar = tqdm(
            total=steps, initial=start, unit="step", dynamic_ncols=True, desc=folder.name, disable=not writes
        )
        self._every, self._rows, self._flops, self._peak = every, rows, flops, peak
        self._max_skips, self._examples = max_skips, examples
        self._waiting: list[tuple[int, Any]] = []
        self._last: dict[str, float | int | None] = {}  # the last line written
        self._clock = time.perf_counter()

    def step(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of `step` (counted from 0)."""
        self._waiting.append((step, metrics))
        if len(self._waiting) >= self._every:
            self.flush()

    def flush(self) -> None:
        """Fetches the waiting metrics and writes them.

        Raises:
          UsageError: too many steps were skipped in a row; names the first of them, its examples and its times.
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
            self._recent.append(line)
            for name, value in line.items():
                if name not in ("step", "data") and value is not None:
                    self._events.add_scalar(name, value, step)
        self._file.flush()
        self._bar.update(len(rows))
        last = rows[-1][1]
        skipped = {"skipped": int(last["skipped"])} if last["skipped"] else {}
        self._bar.set_postfix(loss=f"{float(last['loss']):.4f}", **skipped, refresh=False)
        self._waiting.clear()
        for step, metrics in rows:
            if metrics["skipped_in_a_row"] >= self._max_skips:
                raise UsageError(self._too_many_skips(step, metrics))

    def _too_many_skips(self, step: int, metrics: dict[str, np.ndarray]) -> str:
        first = step + 1 - int(metrics["skipped_in_a_row"])
        indices = self._examples(first)
        shown = ", ".join(map(str, indices[:SHOWN])) + (f" and {len(indices) - SHOWN} more" * (len(indices) > SHOWN))
        by_time = metrics.get("loss_by_time", np.zeros(0))
        times = [f"{k / len(by_time):g} to {(k + 1) / len(by_time):g}" for k in np.flatnonzero(np.isposinf(by_time))]
        return (
            f"Steps {first} to {step} were all skipped (config.stability.max_skips): at step {step} the loss is "
            f"{float(metrics['loss']):.4g} and the gradient's norm {float(metrics['gradient_norm']):.4g}"
            + (f", not finite at times {', '.join(times)}" if times else "")
            + f". Step {first} read examples {shown}. The newest checkpoint is untouched by them: look at those "
            "examples, or start a run with a lower learning rate and --config.init_from=this run's folder."
        )

    @property
    def is_skipping(self) -> bool:
        """Whether the last step that was fetched was skipped."""
        return bool(self._last.get("skipped_in_a_row"))

    def mean(self, name: str) -> float:
        """The mean of a metric over the last `window` steps, those before a resume included, where it was a number.

        Raises:
          UsageError: nowhere.
        """
        values = [line[name] for line in self._recent if line.get(name) is not None]
        if not values:
            raise UsageError(f"The metric '{name}' (config.checkpoint.best) was a number nowhere: use another.")
        return float(np.mean(values))

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


def check_name(name: str, metrics: dict[str, jax.ShapeDtypeStruct]) -> None:
    """Raises UsageError: `config.checkpoint.best` is none of the metrics of a step, or none that can be averaged."""
    known = sorted(_flat({key: np.zeros(value.shape) for key, value in metrics.items() if key != "data"}))
    if name not in known:
        raise UsageError(f"There is no metric '{name}' (config.checkpoint.best): use one of {', '.join(known)}.")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line cut short by a kill is left out."""
    return list(_lines(folder / "metrics.jsonl"))


def diverged(folder: Path, max_skips: int) -> bool:
    """Whether so many steps in a row were skipped that the run ended by it."""
    return any(line["skipped_in_a_row"] >= max_skips for line in _lines(folder / "metrics.jsonl"))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """One line after another: the file of a long run is large. Ends where a line is not whole, or no object."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    found = json.loads(line)
                except json.JSONDecodeError:
                    return
                if not isinstance(found, dict):
                    return
                yield found


def _cut(path: Path, start: int) -> Any:
    """The file without what follows the steps before `start`, open for appending. Steps follow one another in it."""
    path.touch()
    whole = sum(1 for line in _lines(path) if line["step"] < start)
    with path.open("r+b") as file:
        size = sum(len(line) for line in islice(file, whole))
        file.truncate(size)
        file.seek(max(0, size - 1))
        if file.read() not in (b"", b"\n"):  # a loss of power can take the end of a line alone
            file.write(b"\n")
    return path.open("a", encoding="utf-8")


def _flat(metrics: dict[str, np.ndarray]) -> dict[str, float | int | None]:
    """Scalars by name; a vector becomes name/0, name/1, ...; a value that is not a number becomes null."""
    flat = {}
    for name, value in metrics.items():
        if value.ndim == 0:
            flat[name] = value.item()
        else:
            flat.update({f"{name}/{index}": float(x) for index, x in enumerate(value)})
    return {name: value if math.isfinite(value) else None for name, value in flat.items()}
