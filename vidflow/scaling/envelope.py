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


def fit(points: Points, resamples: int = 1000, seed: int = 0) -> dict[str, Fitted]:
    """Laws of the best `parameters`, their `tokens` and `loss` over the budget.

    A curve is the points of one size; between them the loss is a line over log FLOPs. Budgets at which the smallest or
    the largest model that has a curve there is best do not count: another might be better. Intervals are of curves
    drawn with replacement.

    Raises:
      UsageError: fewer than five sizes, or fewer than two that are ever best.
    """
    sizes = np.unique(points.parameters)
    if len(sizes) < SIZES:
        raise UsageError(
            f"The envelope needs curves of at least {SIZES} sizes, or its laws have no interval, and these are "
            f"{len(sizes)}: train more sizes."
        )
    curves = [points.only(points.parameters == size) for size in sizes]
    budgets = np.geomspace(points.flops.min(), points.flops.max(), GRID)
    losses, tokens = (np.stack([_on(budgets, curve, name) for curve in curves]) for name in ("loss", "tokens"))
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
    return result


def _on(budgets: np.ndarray, curve: Points, name: str) -> np.ndarray:
    """A curve at the budgets, infinite where it was not trained."""
    order = np.argsort(curve.flops)
    x, y = np.log(curve.flops[order]), getattr(curve, name)[order]
    return np.interp(np.log(budgets), x, y, left=np.inf, right=np.inf)


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
