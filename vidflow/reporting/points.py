"""The table of a sweep, as text."""

from collections.abc import Sequence
from typing import Any

HEADING = f"{'parameters':>12} {'tokens':>9} {'FLOPs':>9} {'loss':>8}  point"


def line(row: dict[str, Any]) -> str:
    """One point."""
    return f"{row['parameters']:>12,} {row['tokens']:>9.3g} {row['flops']:>9.3g} {row['loss']:>8.4f}  {row['name']}"


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """All of them, by their FLOPs and then by their parameters."""
    ordered = sorted(rows, key=lambda row: (row["flops"], row["parameters"]))
    return "\n".join([HEADING, *map(line, ordered)])
