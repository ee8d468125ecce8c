"""Rows of results as lines of text, the same in a terminal and in the summary."""

from collections.abc import Sequence
from typing import Any

# Of each benchmark: the columns that say which case a row is, and those of its results.
TIMES = ("ms", "iqr", "TFLOP/s", "% peak", "GiB")
COLUMNS = {
    "kernels": (("kernel", "case"), ("right", "out", "dq", "dk", "dv")),
    "attention": (("framework", "kernel", "pass", "length"), TIMES),
    "autoencoder": (("framework", "step", "frames"), ("ms", "iqr", "GiB", "frames/s", "parameters")),
    "text": (("framework", "tower", "texts"), ("ms", "iqr", "GiB", "texts/s", "parameters", "farthest")),
    "train_step": (("framework", "size", "tokens", "kernel", "remat"), (*TIMES, "tokens/s", "compile s", "loss")),
}
WIDTHS = {"case": 32, "length": 7, "size": 5, "tokens": 7, "kernel": 6, "pass": 7, "remat": 9, "% peak": 6}


def device(document: dict[str, Any]) -> str:
    """The device and what runs on it, in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return f"{document['device']}; {versions}"


def cells(benchmark: str, row: dict[str, Any]) -> list[str]:
    """A row's values under its benchmark's columns; of a failed one the case and then, as one cell, what failed."""
    case, results = COLUMNS[benchmark]
    if "error" in row:
        said = ("out of memory: " if row["out_of_memory"] else "failed: ") + row["error"]
        return [*(_text(row[name]) for name in case), said]
    return [*(_text(row[name]) for name in case), *(_result(name, row) for name in results)]


def heading(benchmark: str) -> str:
    return _line(benchmark, sum(COLUMNS[benchmark], ()))


def row(benchmark: str, row: dict[str, Any]) -> str:
    return _line(benchmark, cells(benchmark, row))


def ratio(benchmark: str, ratio: dict[str, Any]) -> str:
    """A ratio as a sentence."""
    if benchmark == "attention":
        case = f"{ratio['kernel']}, {ratio['pass']}, {ratio['length']:,} tokens"
    elif benchmark in ("autoencoder", "text"):
        case = ratio["step" if benchmark == "autoencoder" else "tower"]
    else:
        case = f"{ratio['size']}, {ratio['tokens']:,} tokens"
    return f"{case}: {ratio['ratio']:.2f} times the speed of {ratio['against']}"


def _result(name: str, row: dict[str, Any]) -> str:
    if name == "GiB":  # an asterisk: of the compiled program, not of the device's allocator
        return _text(row["peak_bytes"] and row["peak_bytes"] / 2**30) + "*" * (row["peak_of"] == "program")
    if name == "loss" and row["loss"] is None:
        return "not finite"
    keys = {"iqr": "ms_iqr", "TFLOP/s": "tflops_per_second", "% peak": "percent_of_peak"}
    keys |= {"tokens/s": "tokens_per_second", "compile s": "compile_seconds", "frames/s": "frames_per_second"}
    keys |= {"texts/s": "texts_per_second"}
    return _text(row[keys.get(name, name)])


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _line(benchmark: str, values: Sequence[str]) -> str:
    names = [*COLUMNS[benchmark][0], *COLUMNS[benchmark][1]]
    widths = [WIDTHS.get(name, 10) for name in names[: len(values)]]
    return "  ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)).rstrip()
