"""The one rule by which a difference counts: Welch's interval of the difference of two means.

Every table, figure, verdict and row of the scoreboard asks :func:`compare`, so that all are judged alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from scipy import stats

Verdict = Literal["higher", "lower", "not told apart", "no verdict"]
CONFIDENCE = 0.95
"""Two-sided confidence of every interval in the book."""


@dataclass(frozen=True)
class Comparison:
    """The difference of two groups of runs, ``a`` minus ``b``, in the unit of the values.

    Attributes:
        difference: mean of a minus mean of b.
        low, high: ends of the interval; NaN where a side has a single run.
        n: runs of a, runs of b.
        verdict: ``"higher"`` or ``"lower"`` if the interval excludes 0, ``"not told apart"`` if it does not,
            ``"no verdict"`` if a side has a single run.
    """

    difference: float
    low: float
    high: float
    n: tuple[int, int]
    verdict: Verdict

    def interval(self, digits: int = 2) -> str:
        """``+1.20 [+0.30, +2.10]``; of a single run the difference alone."""
        ends = "" if self.verdict == "no verdict" else f" [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"
        return f"{self.difference:+.{digits}f}{ends}"

    def __str__(self) -> str:
        """``+1.20 [+0.30, +2.10], n = 3 and 3: higher``."""
        return f"{self.interval()}, n = {self.n[0]} and {self.n[1]}: {self.verdict}"


def compare(a: Sequence[float], b: Sequence[float], *, comparisons: int = 1) -> Comparison:
    """Compare two groups of independent runs by Welch's interval, which lets their spreads differ.

    Args:
        a, b: a value a run, in any unit; at least one each.
        comparisons: how many comparisons the page makes together; the confidence is divided among them (Bonferroni).
            1, the default, is a comparison that stands for itself.

    Raises:
        ValueError: an empty group, a value that is not finite, or fewer than one comparison.

    Source: Welch, "The generalization of Student's problem when several different population variances are
    involved", 1947.
    """
    if not len(a) or not len(b) or not np.isfinite([*a, *b]).all() or comparisons < 1:
        raise ValueError(f"compare takes two groups of finite values and a count above 0, not {a}, {b}, {comparisons}")
    difference, n = float(np.mean(a) - np.mean(b)), (len(a), len(b))
    if min(n) == 1:
        return Comparison(difference, nan, nan, n, "no verdict")
    if np.std(a) == np.std(b) == 0:  # no spread at all: the interval is a point
        low = high = difference
    else:
        confidence = 1 - (1 - CONFIDENCE) / comparisons
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of one side without spread scipy says "precision loss"
            interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(confidence)
        low, high = float(interval.low), float(interval.high)
    return Comparison(difference, low, high, n, _verdict(low, high))


def paired(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Compare runs that come in pairs, of one seed each, by Student's interval of their differences.

    Args:
        a, b: a value a run, pair by pair, in any unit; at least one pair.

    Raises:
        ValueError: no pair, a run without its partner, or a value that is not finite.
    """
    if not len(a) or len(a) != len(b) or not np.isfinite([*a, *b]).all():
        raise ValueError(f"paired takes as many finite values on both sides, one at least, not {a}, {b}")
    difference, low, high = mean_interval(np.subtract(a, b).tolist())
    n = (len(a), len(b))
    return Comparison(difference, low, high, n, "no verdict" if len(a) == 1 else _verdict(low, high))


def _verdict(low: float, high: float) -> Verdict:
    return "higher" if low > 0 else "lower" if high < 0 else "not told apart"


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the ends of its two-sided Student interval; of a single value the ends are NaN."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, nan, nan
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half
