"""Laws of scaling from the rows of a sweep, by one of three methods."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vidflow.errors import UsageError
from vidflow.scaling import envelope, isoflop, laws, parametric, rates
from vidflow.scaling.isoflop import Parabola, Points
from vidflow.scaling.laws import Fitted
from vidflow.tasks.results import BATCH, RATE, Row, parameters

METHODS = ("isoflop", "parametric", "envelope")
QUANTITIES = ("parameters", "tokens", "loss")


class Found(NamedTuple):
    """What a fit gives: the laws by name, the parabolas (of isoflop), what a reader should know of the intervals, the
    formula of the loss (of parametric) and those of resampled data."""

    laws: dict[str, Fitted]
    parabolas: Sequence[Parabola] = ()
    said: Sequence[str] = ()
    formula: parametric.Loss | None = None
    resampled: Sequence[parametric.Loss] = ()


class Held(NamedTuple):
    """A quantity at a budget that was held out: what the law of the others says, the 95% interval for it (of parabolas,
    for what they should find there, whose noise comes on top of the law's), and what was found."""

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
            return Found(*isoflop.fit(points))
        case "parametric":
            formula, again, said = parametric.fit_with_intervals(points)
            return Found(parametric.best(formula, again, points), said=said, formula=formula, resampled=again)
        case "envelope":
            found, said = envelope.fit(points)
            return Found(found, said=said)
    raise UsageError(f"--method={method} is not a method of fitting: use one of {', '.join(METHODS)}.")


def of_the_largest(points: Points) -> np.ndarray:
    """Which points are of the largest budget.

    Raises:
      UsageError: fewer than three budgets.
    """
    groups = isoflop.budgets(points)
    if len(groups) < 3:
        raise UsageError(f"--holdout=largest leaves {len(groups) - 1} of {len(groups)} budgets, and a law needs two.")
    return points.flops >= groups[-1].flops.min()


def tried(found: Found, held: Points) -> list[Held]:
    """Laws against the best model of the budget that they did not see, by a parabola through it."""
    curve = isoflop.parabola(held)
    flops = float(curve.along(held.flops, curve.best["parameters"]))
    if found.formula is not None:
        best = parametric.best_on([found.formula, *found.resampled], curve)
        said = {name: (float(best[name][0]), *laws.percentiles(best[name][1:])) for name in QUANTITIES}
    elif found.parabolas:
        noise, said = isoflop.shifts([*found.parabolas, curve]), {}
        for name in QUANTITIES:
            again = found.laws[name].again(flops)
            said[name] = float(found.laws[name].law(flops)), *laws.percentiles(again * noise[name][: len(again)])
    else:
        said = {name: found.laws[name].predict(flops) for name in QUANTITIES}
    return [Held(name, flops, *said[name], curve.best[name]) for name in QUANTITIES]


def floor(found: Found) -> tuple[float, float] | None:
    """The floor of the loss over the minima and the probability of such an improvement without one; None if unknown, as
    from an envelope, whose points are many of few curves."""
    law = found.laws["loss"]
    if not found.parabolas or len(law.x) < 4:
        return None
    bounded, chance = laws.floor_is_seen(law.x, law.y)
    return bounded.floor, chance


def rules(rows: Sequence[Row]) -> dict[str, rates.Fitted] | None:
    """Of the learning rate and batch size; None if the rows hold one of them all but fixed.

    Raises:
      UsageError: they vary, and do not show the rules.
    """
    pairs = [(row.get("config", {}).get(RATE), row.get("config", {}).get(BATCH)) for row in rows]
    if any(None in pair for pair in pairs) or min(len(set(column)) for column in zip(*pairs, strict=True)) < 3:
        return None
    columns = [[parameters(row), row["tokens"], *pair, row["loss"]] for row, pair in zip(rows, pairs, strict=True)]
    return rates.fit(rates.Trained(*np.array(columns, float).T))
