"""The IsoFLOP method (Hoffmann et al. 2022, approach 2): a parabola a budget, a power law through their minima.

At one budget of FLOPs, small models see many tokens and large models few. The loss over the logarithm of the number of
parameters is close to a parabola, whose minimum is the best model for that budget.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vidflow.errors import UsageError
from vidflow.scaling.laws import Fitted, Values

SAME_BUDGET = 1.1  # FLOPs within this factor of a budget's smallest belong to it: models come in steps
SIZES = 4  # a budget needs one more than a parabola has constants, or its noise is unknown


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
    """loss = curve[0] u^2 + curve[1] u + curve[2] with u = log parameters, of the points of one budget."""

    flops: float
    points: Points
    curve: np.ndarray

    @property
    def parameters(self) -> float:
        """At the minimum."""
        return float(np.exp(-self.curve[1] / (2 * self.curve[0])))

    @property
    def loss(self) -> float:
        """At the minimum."""
        return float(np.polyval(self.curve, np.log(self.parameters)))

    def along(self, values: Values, parameters: Any) -> Any:
        """What models of other sizes have of `values`, positive, one a point: by a parabola of the logarithms."""
        smooth = np.polyfit(np.log(self.points.parameters), np.log(values), 2)
        return np.exp(np.polyval(smooth, np.log(parameters)))


def budgets(points: Points) -> list[Points]:
    """The points of each budget, from the smallest."""
    result, order = [], np.argsort(points.flops)
    while len(order):
        same = points.flops[order] <= SAME_BUDGET * points.flops[order[0]]
        result.append(points.only(order[same]))
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
    curve = np.polyfit(np.log(points.parameters), points.loss, 2)
    found = Parabola(flops, points, curve)
    falling = np.polyfit(np.log(points.parameters), points.loss, 1)[0] < 0
    if curve[0] <= 0 or not sizes[0] <= found.parameters <= sizes[-1]:
        where, end = ("larger", sizes[-1]) if falling else ("smaller", sizes[0])
        raise UsageError(
            f"At the budget of {flops:.3g} FLOPs no minimum lies between models of {sizes[0]:.3g} and {sizes[-1]:.3g} "
            f"parameters: train {where} models than {end:.3g} at this budget, or leave it out."
        )
    return found


def fit(points: Points, resamples: int = 1000, seed: int = 0) -> tuple[dict[str, Fitted], list[Parabola]]:
    """Laws of the best `parameters`, their `tokens`, `loss` and each of `others` over the budget of FLOPs.

    Intervals are of a residual bootstrap: each point keeps its model and gets another point's deviation from its
    parabola, widened by the degrees of freedom that the parabolas took.

    Raises:
      UsageError: as `parabola`; or fewer than two budgets.
    """
    curves = [parabola(part) for part in budgets(points)]
    if len(curves) < 2:
        raise UsageError("One budget shows no law: give the results of at least two.")
    rng = np.random.default_rng(seed)
    flops = np.array([curve.flops for curve in curves])
    names = ("parameters", "tokens", "loss", *points.others)
    best = [_minimum(curve.points, curve.points.loss[:, None], curve.points.others) for curve in curves]
    drawn = _resampled(curves, resamples, rng)
    fitted = {}
    for name in names:
        y = np.array([found[name][0] for found in best])
        many = np.stack([found[name] for found in drawn])  # [budgets, resamples]
        kept = np.all(np.isfinite(many) & (many > 0), axis=0)
        fitted[name] = Fitted.of(flops, y, many[:, kept])
    return fitted, curves


def _resampled(curves: list[Parabola], resamples: int, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """For each budget, what its minimum is in each resampled data set."""
    names = ("loss", *curves[0].points.others)
    fits, noise = [], {name: [] for name in names}
    for curve in curves:
        u = np.log(curve.points.parameters)
        values = {"loss": curve.points.loss, **curve.points.others}
        smooth = {name: np.polyval(np.polyfit(u, values[name], 2), u) for name in names}
        wider = np.sqrt(len(u) / (len(u) - 3))
        for name in names:
            noise[name].append(wider * (values[name] - smooth[name]) / smooth[name].mean())
        fits.append(smooth)
    result = []
    for curve, smooth in zip(curves, fits, strict=True):
        shape = (len(curve.points.loss), resamples)
        again = {
            name: smooth[name][:, None] + smooth[name].mean() * rng.choice(np.concatenate(noise[name]), shape)
            for name in names
        }
        result.append(_minimum(curve.points, again.pop("loss"), again))
    return result


def _minimum(points: Points, loss: np.ndarray, others: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each column of `loss` [models, columns] has its minimum at; not a number where it has none."""
    u = np.log(points.parameters)
    centre = u.mean()
    square, slope, level = np.polyfit(u - centre, loss, 2)
    at = np.where(square > 0, -slope / (2 * np.where(square > 0, square, 1.0)), np.nan)
    tokens = np.polyfit(u - centre, np.log(points.tokens), 2)
    found = {
        "parameters": np.exp(centre + at),
        "tokens": np.exp(np.polyval(tokens, at)),
        "loss": level + slope * at / 2,
    }
    for name, values in others.items():
        a, b, c = np.polyfit(u - centre, values.reshape(len(u), -1), 2)
        found[name] = (a * at + b) * at + c
    return found
