"""Values as text for a page: escaped, rounded, with units."""

import html
from typing import Any

from vidflow.reporting.inputs import Missing, number


def clean(value: Any) -> str:
    """The value as text that can be encoded: half a surrogate pair, which JSON allows, becomes a question mark."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def escape(value: Any) -> str:
    """The value as text of HTML, safe between tags and inside quotes."""
    return html.escape(clean(value))


def note(missing: Missing) -> str:
    """A paragraph that says what is not there and how to make it."""
    making = f" Make it with:</p><pre>{escape(missing.command)}</pre>" if missing.command else "</p>"
    return f'<p class="note">{escape(missing.sentence)}{making}'


def percent(value: float | None) -> str:
    """0.945 as "94.5%"; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f}%"


def plain(value: float | None) -> str:
    """Four significant digits, whole numbers in full; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"


def estimate(entry: Any, show: Any = percent) -> str:
    """The mean of an entry of evaluation.json, and in small its interval: "94.5% 91.2% to 97.1%"."""
    low, high = part(entry, "low"), part(entry, "high")
    mean = show(part(entry, "mean"))
    return mean if low is None or high is None else f'{mean} <span class="interval">{show(low)} to {show(high)}</span>'


def part(entry: Any, name: str) -> float | None:
    """A number of an entry of evaluation.json, or None."""
    return number(entry.get(name)) if isinstance(entry, dict) else None


def duration(seconds: float | int) -> str:
    """5.3 s, 12 min 34 s, 1 h 2 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def count(value: float | int) -> str:
    """1234567 as "1.23 million"."""
    for limit, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= 0.9995 * limit:  # what three digits round up to it, too
            return f"{value / limit:.3g} {word}"
    return f"{value:,.0f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of cells that are HTML already; the first cell of a row names it."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = [f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{x}</td>" for x in row[1:]) + "</tr>" for row in rows]
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def figure(drawing: str, caption: str, legend: str = "") -> str:
    """A drawing under its caption and over its legend; all three are HTML already."""
    below = f'<p class="keys">{legend}</p>' if legend else ""
    return f"<figure><figcaption>{caption}</figcaption>{drawing}{below}</figure>"


def keys(labels: list[tuple[str, str]]) -> str:
    """The legend of (colour, label) pairs."""
    return "".join(f'<span class="key" style="--key:{colour}">{escape(label)}</span>' for colour, label in labels)
