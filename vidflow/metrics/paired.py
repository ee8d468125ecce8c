"""Two arms of an experiment, compared where they share a seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from vidflow.metrics import intervals


class Difference(NamedTuple):
    """A mean difference, the ends of its 95% interval, and the probability of one as large if there is none (Student's
    paired test)."""

    mean: float
    low: float
    high: float
    p: float


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Of values of the same seeds, in the same order; at least two."""
    each = np.asarray(ours, float) - np.asarray(theirs, float)
    mean, low, high, _ = intervals.mean(each)
    # Student's statistic is not defined where all are equal.
    p = float(stats.ttest_1samp(each, 0).pvalue) if np.ptp(each) else float(mean == 0)
    return Difference(mean, low, high, p)


def net_win_rate(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """Wins less losses, in parts of all comparisons, of samples of the same prompt: as juries of people report it, but
    every member of this one looks at the score alone. Lists are of prompts, and of the samples of each."""
    signs = [np.sign(np.asarray(a, float) - np.asarray(b, float)).mean() for a, b in zip(ours, theirs, strict=True)]
    return float(np.mean(signs))
