"""The envelope method (Hoffmann et al. 2022, approach 1): which of many training curves is lowest at each budget.

Needs runs whose learning rate does not depend on their length, so that every point of a curve is the end of a shorter
run: a constant rate, or a decay branched off it.
"""

import numpy as np

from vidflow.errors import UsageError
from vidflow.scaling.isoflop import Points
from vidflow.scaling.laws import Fitted

GRID = 100  # budgets looked at
SIZES = 5  # of four, a law needs every one, and curves drawn with replacement give no other law


def fit(points: Points, resamples: int = 1000, seed: int = 0) -> tuple[dict[str, Fitted], list[str]]:
    """Laws of the best `parameters`, their `tokens` and `loss` over the budget, and what to know of their intervals.

    Between its points a curve is a line of logarithms. Budgets at which the smallest or the largest model that has a
    curve there is best do not count: another might be better. Intervals are of curves drawn with replacement. More than
    half of the draws from five sizes have too few of them for a law, and still the interval of the exponent held the
    truth in at least 56 of 60 synthetic data sets of 5, 6, 7, 9 and 13 sizes each (a curve deviated by 0.001).

    Raises:
      UsageError: fewer than five sizes, or fewer than two that are ever best.
    """
    curves = of_sizes(points)
    if len(curves) < SIZES:
        raise UsageError(
            f"The envelope needs curves of at least {SIZES} sizes, or its laws have no interval, and these are "
            f"{len(curves)}: train more sizes."
        )
    sizes = np.array([curve.parameters[0] for curve in curves])
    budgets = np.geomspace(points.flops.min(), points.flops.max(), GRID)
    losses = np.stack([_on(budgets, curve.flops, curve.loss) for curve in curves])
    tokens = np.stack([_on(budgets, curve.flops, curve.tokens) for curve in curves])
    found = _laws(budgets, sizes, losses, tokens)
    if found is None:
        raise UsageError(
            "No model between the smallest and the largest is the best of two budgets: train more sizes, or longer."
        )
    flops, best = found
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(resamples):
        some = np.unique(rng.integers(len(sizes), size=len(sizes)))
        again = _laws(budgets, sizes[some], losses[some], tokens[some]) if len(some) > 2 else None
        if again is not None:
            drawn.append({name: np.polyfit(np.log(again[0]), np.log(y), 1) for name, y in again[1].items()})
    result = {}
    for name, y in best.items():
        lines = np.exp(np.stack([np.polyval(line[name], np.log(flops)) for line in drawn], axis=1))
        result[name] = Fitted.of(flops, y, lines)
    none = 1 - len(drawn) / resamples
    return result, [f"{none:.1%} of draws of curves have no law and are left out"] if none else []


def of_sizes(points: Points) -> list[Points]:
    """The curve of each size, from the smallest size and budget. Several runs of a size, of other seeds, are one curve,
    their mean: the better of two seeds was lucky, and an envelope of such would foretell too much."""
    result = []
    for size in np.unique(points.parameters):
        own = points.only(points.parameters == size)
        flops, place, runs = np.unique(own.flops, return_inverse=True, return_counts=True)
        tokens, loss = (np.bincount(place, values) / runs for values in (own.tokens, own.loss))
        result.append(Points(np.full(len(flops), size), tokens, flops, loss))
    return result


def _on(budgets: np.ndarray, flops: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A curve at the budgets, infinite where it was not trained."""
    return np.exp(np.interp(np.log(budgets), np.log(flops), np.log(values), left=np.inf, right=np.inf))


def _laws(
    budgets: np.ndarray, sizes: np.ndarray, losses: np.ndarray, tokens: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
    """Budgets at which a model between the ends is best, and what it has there."""
    best = np.argmin(losses, axis=0)
    bounded = np.pad(np.isfinite(losses), ((1, 1), (0, 0)))  # row i + 1 is size i
    column = np.arange(len(budgets))
    inner = bounded[best, column] & bounded[best + 1, column] & bounded[best + 2, column]
    if len(set(best[inner].tolist())) < 2:
        return None
    row, column = best[inner], column[inner]
    return budgets[inner], {
        "parameters": sizes[row],
        "tokens": tokens[row, column],
        "loss": losses[row, column],
    }
