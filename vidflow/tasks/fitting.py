"""Laws of scaling from the rows of a sweep, by one of three methods."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vidflow.errors import UsageError
from vidflow.scaling import envelope, isoflop, laws, parametric, rates
from vidflow.scaling.isoflop import Parabola, Points
from vidflow.scaling.laws import Fitted
from vidflow.tasks.results import BATCH, RATE, Row

METHODS = ("isoflop", "parametric", "envelope")


class Found(NamedTuple):
    """What a fit gives: the laws by name, the parabolas (of isoflop), and the formula of the loss (of parametric)."""

    laws: dict[str, Fitted]
    parabolas: list[Parabola]
    formula: parametric.Loss | None


class Held(NamedTuple):
    """A quantity at a budget that was held out: what the law of the others says, its interval, and what was found."""

    name: str
    flops: float
    predicted: float
    low: float
    high: float
    found: float


def fit(points: Points, method: str) -> Found:
    """Raises UsageError: as the method does, or an unknown one."""
    match method:
        case "isoflop":
            return Found(*isoflop.fit(points), None)
        case "parametric":
            formula, again = parametric.fit_with_intervals(points)
            return Found(parametric.best(formula, again, points), [], formula)
        case "envelope":
            return Found(envelope.fit(points), [], None)
    raise UsageError(f"--method={method} is not a method of fitting: use one of {', '.join(METHODS)}.")


def without_the_largest(points: Points) -> tuple[Points, Points]:
    """The points of all budgets but the largest, and those of the largest.

    Raises:
      UsageError: fewer than three budgets.
    """
    groups = isoflop.budgets(points)
    if len(groups) < 3:
        raise UsageError(f"--holdout=largest leaves {len(groups) - 1} of {len(groups)} budgets, and a law needs two.")
    largest = points.flops >= groups[-1].flops.min()
    return points.only(~largest), points.only(largest)


def tried(found: Found, held: Points) -> list[Held]:
    """Laws against the budget that they did not see."""
    curve = isoflop.parabola(held)
    nearest = np.argmin(np.abs(np.log(held.parameters / curve.parameters)))
    tokens = float(held.parameters[nearest] * held.tokens[nearest] / curve.parameters)
    truth = {"parameters": curve.parameters, "tokens": tokens, "loss": curve.loss}
    return [
        Held(name, curve.flops, *found.laws[name].predict(curve.flops), value)
        for name, value in truth.items()
        if name in found.laws
    ]


def floor(found: Found) -> tuple[float, float] | None:
    """The floor of the loss over the minima and the probability of such an improvement without one; None if unknown."""
    law = found.laws["loss"]
    if found.formula is not None or len(law.x) < 4:
        return None
    bounded, chance = laws.floor_is_seen(law.x, law.y)
    return bounded.floor, chance


def rules(rows: Sequence[Row]) -> dict[str, rates.Fitted] | None:
    """Of the learning rate and batch size, if the rows vary both enough; None if they hold one fixed."""
    pairs = [(row.get("config", {}).get(RATE), row.get("config", {}).get(BATCH)) for row in rows]
    if any(None in pair for pair in pairs) or min(len(set(column)) for column in zip(*pairs, strict=True)) < 3:
        return None
    columns = [*([row["parameters"], row["tokens"], *pair, row["loss"]] for row, pair in zip(rows, pairs, strict=True))]
    return rates.fit(rates.Trained(*np.array(columns, float).T))
