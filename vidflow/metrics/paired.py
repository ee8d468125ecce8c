"""Two arms of an experiment, compared where they share a seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from vidflow.metrics import intervals

DIGITS = 12  # of the larger value, to which a difference is one of the values and not of how they were rounded


class Difference(NamedTuple):
    """A mean difference, the ends of its 95% interval, and the probability of one as large if there is none (Student's
    paired test). What cannot be known is not a number."""

    mean: float
    low: float
    high: float
    p: float


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Of values of the same seeds, in the same order.

    One pair has no interval, and neither have differences that are all equal: scores that are counted in steps say
    nothing of what lies between. Where every one of several is zero, p is 1: every other result would be as large.
    """
    one, other = np.asarray(ours, float), np.asarray(theirs, float)
    unit = max(np.abs(one).max(), np.abs(other).max()) or 1.0
    each = np.round((one - other) / unit, DIGITS) * unit
    mean, low, high, count = intervals.mean(each)
    if np.isnan(low):
        return Difference(mean, low, high, 1.0 if count > 1 and mean == 0 else np.nan)
    return Difference(mean, low, high, float(stats.ttest_1samp(each, 0).pvalue))


def net_win_rate(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """Wins less losses, in parts of all comparisons, of samples of the same prompt: as juries of people report it, but
    every member of this one looks at the score alone. Lists are of prompts, and of the samples of each."""
    signs = [np.sign(np.asarray(a, float) - np.asarray(b, float)).mean() for a, b in zip(ours, theirs, strict=True)]
    return float(np.mean(signs))
