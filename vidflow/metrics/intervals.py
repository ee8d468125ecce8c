"""Means with 95% intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

ROUNDING = 1e-12  # of the mean: sums in another order differ by less


class Interval(NamedTuple):
    """A mean, the ends of its 95% interval, and the number of values behind it."""

    mean: float
    low: float
    high: float
    n: int


def proportion(values: Sequence[float] | np.ndarray, independent: int | None = None) -> Interval:
    """Mean of scores in [0, 1], with Wilson's interval (Wilson 1927), which stays honest near 0 and 1.

    `independent` is how many of the values are independent draws, when that is fewer than all: several samples of one
    prompt are not.
    """
    independent = independent or len(values)
    mean = float(np.mean(values))
    z2 = stats.norm.ppf(0.975) ** 2
    centre = (mean + z2 / (2 * independent)) / (1 + z2 / independent)
    spread = np.sqrt(z2 * (mean * (1 - mean) / independent + z2 / (4 * independent**2))) / (1 + z2 / independent)
    return Interval(mean, float(max(centre - spread, 0.0)), float(min(centre + spread, 1.0)), len(values))


def mean(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean of real values, with Student's interval. Its ends are not numbers where all values are equal, or there is
    but one, or one is infinite or no number: nothing is known of their spread."""
    if not np.isfinite(values).all():
        return Interval(float(np.mean(values)), np.nan, np.nan, len(values))
    if np.ptp(values) <= ROUNDING * np.max(np.abs(values)):
        return Interval(float(values[0]), np.nan, np.nan, len(values))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    return Interval(float(np.mean(values)), float(low), float(high), len(values))


def share(values: Sequence[float] | np.ndarray, independent: int) -> Interval:
    """Mean of shares, one a seed, with the part of Student's interval that lies in [0, 1].

    Seeds that all have the same share say nothing of their spread. Then the interval is Wilson's for the `independent`
    draws behind each of them, if these are known (not 0): as wide as that of one seed.
    """
    found = mean(values)
    if not np.isnan(found.low):
        return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))
    return proportion(values, independent) if independent and len(values) > 1 else found
