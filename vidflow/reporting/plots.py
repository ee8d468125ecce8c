"""Curves and intervals as small SVG images that live inside a page and follow its light or dark colours."""

import html
import io
import re
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

MOST_POINTS = 600
LOG_FROM = 3.0  # largest over smallest value from which on a logarithmic axis says more than a linear one

# Stand-ins: colours that nothing else in a drawing has, replaced by the colours of the page.
INK, FAINT, ACCENT, GROUND = "#010102", "#010103", "#010104", "#010105"
_PAGE_COLOURS = {INK: "var(--ink-soft)", FAINT: "var(--line)", ACCENT: "var(--accent)", GROUND: "var(--card)"}

# Of one middle lightness, so that they can be read on white and on black.
CATEGORIES = (ACCENT, "#d0702e", "#2f9e77", "#b65fb0", "#c79a1b", "#7b8794")
Scale = Literal["logarithmic", "linear", "from zero"]
_RAMP = LinearSegmentedColormap.from_list("ramp", ["#4f7fe0", "#2f9e8f", "#d9a125", "#d1553f"])

_STYLE = {
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "text.parse_math": False,
    "path.simplify": False,  # it would drop the dots, which are lines without length
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def ramp(count: int) -> list[str]:
    """`count` colours from blue to red, for things that have an order."""
    return [to_hex(_RAMP(x)) for x in np.linspace(0, 1, count)]


def css(colour: str) -> str:
    """A colour of this module as the page writes it."""
    return _PAGE_COLOURS.get(colour, colour)


def running_mean(values: Float[np.ndarray, "N"], window: int) -> Float[np.ndarray, "N"]:
    """The mean over the `window` nearest values: centred, and with fewer of them at the ends.

    A window is the end of one block of as many values and the beginning of the next, so that nothing is taken off a sum
    again: beside a value of 1e20 others would be lost.
    """
    before, after, count = (window - 1) // 2, window // 2, len(values)
    blocks = np.pad(values, (before, after + -(count + window - 1) % window)).reshape(-1, window)
    beginnings, ends = np.cumsum(blocks, axis=1).ravel(), np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    index = np.arange(count)
    sums = ends[index] + np.where(index % window, beginnings[index + window - 1], 0.0)
    return sums / (np.minimum(index + after + 1, count) - np.maximum(index - before, 0))


def thinned(points: Float[np.ndarray, "N 2"], most: int = MOST_POINTS) -> Float[np.ndarray, "M 2"]:
    """At most `most` of the points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return points
    return points[np.linspace(0, len(points) - 1, most).round().astype(int)]


def smoothed(points: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    """(step, running mean) with a window of a thirtieth of the points."""
    return np.stack([points[:, 0], running_mean(points[:, 1], max(1, len(points) // 30))], axis=1)


def curve(name: str, points: Float[np.ndarray, "N 2"], scale: Scale = "logarithmic") -> str:
    """An SVG of single values as light dots and their running mean over steps; N >= 1.

    A "logarithmic" axis stays linear where values are not positive, or within a factor of LOG_FROM of each other.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas()
        dots = thinned(points)
        # Lines without length and with round ends: a third of the size of as many markers.
        breaks = np.repeat(dots, 3, axis=0)
        breaks[2::3] = np.nan
        axes.plot(*breaks.T, color=ACCENT, alpha=0.3, linewidth=1.8, solid_capstyle="round")
        axes.plot(*thinned(smoothed(points)).T, color=ACCENT, linewidth=1.5)
        _steps_and_values(axes, points, scale)
        return _svg(figure, name)


def curves(name: str, lines: list[tuple[str, Float[np.ndarray, "_ 2"]]]) -> str:
    """An SVG of the running means of several (colour, points) over steps; each has at least one point."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas()
        for colour, points in lines:
            axes.plot(*thinned(smoothed(points), MOST_POINTS // len(lines) + 20).T, color=colour, linewidth=1.2)
        _steps_and_values(axes, np.concatenate([smoothed(points) for _, points in lines]), "logarithmic")
        return _svg(figure, name)


class Bar(NamedTuple):
    """A fraction with its interval, and what the same fraction is by chance and in the two readings of true clips."""

    label: str
    value: float
    interval: tuple[float, float] | None
    chance: float | None
    truth: float | None
    reconstruction: float | None


def bars(name: str, rows: list[Bar]) -> str:
    """An SVG of horizontal bars with intervals, chance as a stroke, and the readings as a diamond and a square."""
    with matplotlib.rc_context({**_STYLE, "axes.spines.left": False}):
        figure, axes = _canvas(height=0.5 + 0.36 * len(rows))
        hollow = {"color": INK, "markerfacecolor": GROUND, "markersize": 4, "markeredgewidth": 0.9}
        for y, bar in enumerate(rows):
            axes.barh(y, bar.value, height=0.56, color=ACCENT, alpha=0.35)
            if bar.interval:
                axes.plot(bar.interval, (y, y), color=ACCENT, linewidth=2, solid_capstyle="round")
            axes.plot(bar.value, y, "o", color=ACCENT, markersize=4)
            if bar.chance is not None:
                axes.plot((bar.chance, bar.chance), (y - 0.28, y + 0.28), color=INK, linewidth=1.2)
            # Above and below the middle: all three are often close to 1.
            if bar.truth is not None:
                axes.plot(bar.truth, y - 0.27, "D", **hollow)
            if bar.reconstruction is not None:
                axes.plot(bar.reconstruction, y + 0.27, "s", **hollow)
        axes.set_yticks(range(len(rows)), [bar.label for bar in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1.02)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0%}"))
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        return _svg(figure, name)


def _canvas(width: float = 3.9, height: float = 2.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure, figure.add_subplot()


def _steps_and_values(axes: Axes, points: Float[np.ndarray, "N 2"], scale: Scale) -> None:
    values = points[:, 1]
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_short_number))
    if scale == "from zero":
        axes.set_ylim(0, 1.08 * values.max() or 1)
    elif scale == "logarithmic" and values.min() > 0 and values.max() > LOG_FROM * values.min():
        axes.set_yscale("log")
        many = values.max() > 100 * values.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if many else (1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(_short_number))
    axes.minorticks_off()


def _short_number(value: float, _: object = None) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):g}{letter}"
    return f"{value:.4g}"


def _shorter(tag: re.Match) -> str:
    """A tag whose coordinates are in hundredths."""
    return re.sub(r"\d+\.\d{3,}", lambda digits: f"{float(digits[0]):.2f}", tag[0])


def _svg(figure: Figure, name: str) -> str:
    """The drawing with `name` read out in its place; the same drawing gives the same text."""
    written = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # The salt keeps the names inside one drawing apart from those of the others on the page.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(written, format="svg", metadata=nothing)
    text = written.getvalue()
    view = re.search(r'viewBox="[^"]*"', text)[0]
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.S)  # it would apply to the whole page
    body = re.sub(r"<[^>]*>", _shorter, body)  # not what is written between
    body = re.sub(r' id="[\w.]+_\d+"|<!--.*?-->', "", body)
    body = re.sub(r"M (\S+ \S+)\s+L \1\b", r"M\1h0", body)  # the dots
    body = re.sub(r">\s+<", "><", body)
    for stand_in, colour in _PAGE_COLOURS.items():
        body = body.replace(stand_in, colour)
    links = ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg{links} {view} role="img" aria-label="{html.escape(name)}">{body.strip()}'
