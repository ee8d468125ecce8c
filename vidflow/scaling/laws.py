"""Power laws of one variable, with and without a floor, and intervals from resampled fits.

A law is fitted by least squares of logarithms: noise of a loss is relative, and budgets span decades.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

from vidflow.errors import UsageError

Values = Float[np.ndarray, " n"]

LOST = 0.2  # of resampled data sets that show no law: if more do not, noise hides it


class PowerLaw(NamedTuple):
    """y = coefficient * x ** exponent + floor."""

    coefficient: float
    exponent: float
    floor: float = 0.0

    def __call__(self, x: Any) -> Any:
        return self.coefficient * np.asarray(x, float) ** self.exponent + self.floor


class Fitted(NamedTuple):
    """A law, the constants of the same law of each resampled data set, and what it was fitted to.

    `intercepts` are logarithms of coefficients, which lie so many decades away that they overflow by themselves.
    """

    law: PowerLaw
    intercepts: Values
    exponents: Values
    floors: Values
    x: Values
    y: Values

    @classmethod
    def of(cls, x: Values, y: Values, resampled: Float[np.ndarray, "n resamples"]) -> "Fitted":
        """The law of `y`, and that of each column of `resampled`."""
        exponents, intercepts = np.polyfit(np.log(x), np.log(resampled), 1)
        return cls(fit(x, y), intercepts, exponents, np.zeros_like(exponents), x, y)

    @property
    def coefficient(self) -> tuple[float, float]:
        """The ends of its 95% interval."""
        return percentiles(np.exp(self.intercepts))

    @property
    def floor(self) -> tuple[float, float]:
        """The ends of its 95% interval; of no width where a law has none."""
        return percentiles(self.floors)

    @property
    def exponent(self) -> tuple[float, float]:
        """The ends of its 95% interval."""
        return percentiles(self.exponents)

    def again(self, x: float) -> Values:
        """The value at `x` by the law of each resampled data set."""
        return np.exp(self.intercepts + self.exponents * np.log(x)) + self.floors

    def predict(self, x: float) -> tuple[float, float, float]:
        """The value at `x` and the ends of its 95% interval."""
        return (float(self.law(x)), *percentiles(self.again(x)))


def fit(x: Values, y: Values) -> PowerLaw:
    """The straight line through the logarithms.

    Raises:
      UsageError: fewer than two different values of x, or one that is not positive.
    """
    if not (np.all(x > 0) and np.all(y > 0)):
        raise UsageError("A power law is of positive numbers, and some here are not: leave those rows out.")
    if len(set(x.tolist())) < 2:
        raise UsageError("One budget shows no law: give the results of at least two.")
    exponent, intercept = np.polyfit(np.log(x), np.log(y), 1)
    return PowerLaw(float(np.exp(intercept)), float(exponent))


def fit_with_floor(x: Values, y: Values) -> PowerLaw:
    """a x^b + c of least squares of the logarithm, where c is below every y; it may be negative.

    Raises:
      UsageError: fewer than four values.
    """
    if len(x) < 4:
        raise UsageError(f"A power law with a floor has three constants, and {len(x)} budgets do not test it: give 4.")
    scale = np.exp(np.log(x).mean())  # of x, so that a is of the size of y

    def law(constants: np.ndarray) -> np.ndarray:
        return np.exp(constants[0]) * (x / scale) ** constants[1] + constants[2]

    def residuals(constants: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(law(constants), 1e-3 * y)) - np.log(y)

    found = []
    for part in (0.0, 0.5, 0.9):
        floor = part * y.min()
        exponent, intercept = np.polyfit(np.log(x / scale), np.log(y - floor), 1)
        start = [intercept, exponent, floor]
        found.append(optimize.least_squares(residuals, start, x_scale="jac", xtol=1e-10, ftol=1e-10, gtol=1e-10))
    best = min(found, key=lambda result: result.cost).x
    return PowerLaw(float(np.exp(best[0]) * scale ** -best[1]), float(best[1]), float(best[2]))


def floor_is_seen(x: Values, y: Values) -> tuple[PowerLaw, float]:
    """The law with a floor, and the probability (F test) of such an improvement over the law without if there is none.

    Below 0.05 the floor is seen. Above, nothing is known of it: data of few budgets seldom show one.
    """
    bounded = fit_with_floor(x, y)
    plain, more = (float(np.sum(np.square(np.log(law(x)) - np.log(y)))) for law in (fit(x, y), bounded))
    free = len(x) - 3
    ratio = max(plain - more, 0.0) / max(more / free, 1e-24)
    return bounded, float(stats.f.sf(ratio, 1, free))


def widening(points: int, constants: int) -> float:
    """By how much deviations from fitted curves are less than noise: curves bend towards their points, and few points
    do not tell how much the rest deviate (Student's quantile against the normal one)."""
    free = points - constants
    return float(np.sqrt(points / free) * stats.t.ppf(0.975, free) / stats.norm.ppf(0.975))


def lost(part: float, what: str) -> list[str]:
    """What a reader should know of the part of resampled data sets that tell too little, if there are any.

    Raises:
      UsageError: there are more than `LOST`.
    """
    if part > LOST:
        raise UsageError(
            f"In {part:.0%} of data sets with noise like that of the runs {what}, so nothing is known of the laws: "
            "train more seeds, or sizes that lie further apart."
        )
    return [f"in {part:.1%} of resampled data sets {what}: intervals may be too narrow"] if part else []


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """2.5 and 97.5."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
