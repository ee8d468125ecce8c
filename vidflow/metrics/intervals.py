"""Means with 95% intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


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
    """Mean of at least two real values, with Student's interval; of no width where all are equal."""
    if np.ptp(values) == 0:
        return Interval(float(values[0]), float(values[0]), float(values[0]), len(values))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    return Interval(float(np.mean(values)), float(low), float(high), len(values))
