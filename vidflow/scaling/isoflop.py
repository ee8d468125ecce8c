"""The IsoFLOP method (Hoffmann et al. 2022, approach 2): a parabola a budget, a power law through their minima.

At one budget of FLOPs, small models see many tokens and large models few. The loss over the logarithm of the number of
parameters is close to a parabola, whose minimum is the best model for that budget.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vidflow.errors import UsageError
from vidflow.scaling import laws
from vidflow.scaling.laws import Fitted, Values

SAME = 1.1  # FLOPs within this factor of a budget's smallest belong to it: models and runs come in steps
SIZES = 4  # a budget needs one more than a parabola has constants, or its noise is unknown
BEYOND = 0.5  # of the span of a budget's sizes, by which a resampled minimum may leave them: further nothing is known


class Points(NamedTuple):
    """Trained models, one to an index. `others` are further metrics, by name."""

    parameters: Values
    tokens: Values
    flops: Values
    loss: Values
    others: Mapping[str, Values] = {}

    def only(self, chosen: np.ndarray) -> "Points":
        others = {name: values[chosen] for name, values in self.others.items()}
        return Points(*(column[chosen] for column in self[:4]), others)


class Parabola(NamedTuple):
    """loss = curve[0] u^2 + curve[1] u + curve[2] with u = log parameters, of the points of one budget, and what its
    minimum has: `parameters`, `tokens`, `loss` and each of the points' `others`."""

    flops: float
    points: Points
    curve: np.ndarray
    best: dict[str, float]

    def along(self, values: Values, parameters: Any) -> Any:
        """What models of other sizes have of `values`, positive, one a point: by a parabola of the logarithms."""
        smooth = np.polyfit(np.log(self.points.parameters), np.log(values), 2)
        return np.exp(np.polyval(smooth, np.log(parameters)))


def budgets(points: Points) -> list[Points]:
    """The points of each budget, from the smallest."""
    return [points.only(some) for some in alike(points.flops)]


def alike(values: Values) -> list[np.ndarray]:
    """Places of the values that are one but for whole steps, from the smallest."""
    result, order = [], np.argsort(values)
    while len(order):
        same = values[order] <= SAME * values[order[0]]
        result.append(order[same])
        order = order[~same]
    return result


def parabola(points: Points) -> Parabola:
    """Of the points of one budget.

    Raises:
      UsageError: fewer than four sizes, no minimum, or one beyond the sizes that were trained.
    """
    flops = float(np.exp(np.log(points.flops).mean()))
    sizes = sorted(set(points.parameters.tolist()))
    if len(sizes) < SIZES:
        raise UsageError(
            f"The budget of {flops:.3g} FLOPs has models of {len(sizes)} sizes, and a parabola with its noise needs "
            f"{SIZES}: train more sizes at this budget, leave it out, or count FLOPs as the sweep did."
        )
    if not np.all(np.isfinite(points.loss)):
        raise UsageError(f"The budget of {flops:.3g} FLOPs has a loss that is not a number: leave that run out.")
    best, between = _minimum(points, points.loss[:, None], points.others)
    if not between[0]:
        falling = np.polyfit(np.log(points.parameters), points.loss, 1)[0] < 0
        where, end = ("larger", sizes[-1]) if falling else ("smaller", sizes[0])
        raise UsageError(
            f"At the budget of {flops:.3g} FLOPs no minimum lies between models of {sizes[0]:.3g} and {sizes[-1]:.3g} "
            f"parameters: train {where} models than {end:.3g} at this budget, or leave it out."
        )
    curve = np.polyfit(np.log(points.parameters), points.loss, 2)
    return Parabola(flops, points, curve, {name: float(values[0]) for name, values in best.items()})


def fit(points: Points, resamples: int = 1000, seed: int = 0) -> tuple[dict[str, Fitted], list[Parabola], list[str]]:
    """Laws of the best `parameters`, their `tokens`, `loss` and each of `others` over the budget of FLOPs; the
    parabolas; and what a reader should know of the intervals.

    Intervals are of a residual bootstrap: each point keeps its model and gets another point's deviation from its
    parabola, widened for the degrees of freedom that the parabolas took and for how few are left. A minimum far beyond
    the sizes that were trained, or nowhere, is put where that begins.

    Raises:
      UsageError: as `parabola`; fewer than two budgets; or noise in which too many minima are lost.
    """
    curves = [parabola(part) for part in budgets(points)]
    if len(curves) < 2:
        raise UsageError("One budget shows no law: give the results of at least two.")
    drawn, between = _resampled(curves, resamples, seed)
    said = laws.lost(1 - between.mean(), "a budget has its minimum far beyond its sizes or nowhere")
    flops = np.array([curve.flops for curve in curves])
    fitted = {}
    for name in curves[0].best:
        many = np.stack([found[name] for found in drawn])  # [budgets, resamples]
        positive = np.all(many > 0, axis=0)
        said += laws.lost(1 - positive.mean(), f"{name} is not positive")
        fitted[name] = Fitted.of(flops, np.array([curve.best[name] for curve in curves]), many[:, positive])
    return fitted, curves, said


def shifts(curves: list[Parabola], resamples: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """By which factors noise like that of all these budgets moves what the last one has its minimum at."""
    drawn, _ = _resampled(curves, resamples, seed)
    return {name: values / curves[-1].best[name] for name, values in drawn[-1].items()}


def _resampled(curves: list[Parabola], resamples: int, seed: int) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """For each budget, what its minimum is in each resampled data set; and which of these have all minima near their
    sizes."""
    rng = np.random.default_rng(seed)
    names = ("loss", *curves[0].points.others)
    fits, noise = [], {name: [] for name in names}
    for curve in curves:
        u = np.log(curve.points.parameters)
        values = {"loss": curve.points.loss, **curve.points.others}
        smooth = {name: np.polyval(np.polyfit(u, values[name], 2), u) for name in names}
        for name in names:
            noise[name].append((values[name] - smooth[name]) / smooth[name].mean())
        fits.append(smooth)
    wider = laws.widening(sum(len(curve.points.loss) for curve in curves), 3 * len(curves))
    result, between = [], np.ones(resamples, bool)
    for curve, smooth in zip(curves, fits, strict=True):
        shape = (len(curve.points.loss), resamples)
        again = {
            name: smooth[name][:, None] + wider * smooth[name].mean() * rng.choice(np.concatenate(noise[name]), shape)
            for name in names
        }
        found, inside = _minimum(curve.points, again.pop("loss"), again, BEYOND)
        result.append(found)
        between &= inside
    return result, between


def _minimum(
    points: Points, loss: np.ndarray, others: Mapping[str, np.ndarray], beyond: float = 0.0
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What each column of `loss` [models, columns] has its minimum at, and whether that lies between the sizes, or
    `beyond` them by that part of their span. If not, it is put at the end where the parabola is lower."""
    u = np.log(points.parameters)
    centre = u.mean()
    low, high = u.min() - centre - beyond * np.ptp(u), u.max() - centre + beyond * np.ptp(u)
    square, slope, level = np.polyfit(u - centre, loss, 2)
    at = np.where(square > 0, -slope / (2 * np.where(square > 0, square, 1.0)), np.nan)
    between = (low <= at) & (at <= high)
    end = np.where((square * low + slope) * low <= (square * high + slope) * high, low, high)
    at = np.where(between, at, end)
    tokens = np.polyfit(u - centre, np.log(points.tokens), 2)
    found = {
        "parameters": np.exp(centre + at),
        "tokens": np.exp(np.polyval(tokens, at)),
        "loss": (square * at + slope) * at + level,
    }
    for name, values in others.items():
        a, b, c = np.polyfit(u - centre, values.reshape(len(u), -1), 2)
        found[name] = (a * at + b) * at + c
    return found, between
