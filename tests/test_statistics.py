"""The one rule by which a difference counts."""

import math

import pytest

from lab.statistics import compare, mean_interval, paired


def test_welchs_interval_worked_out_by_hand():
    # means 2 and 5, variances 1 and 4, n = 3: se^2 = 5/3, df = (5/3)^2 / ((1/3)^2/2 + (4/3)^2/2) = 50/17
    result = compare([1, 2, 3], [3, 5, 7])
    t = 3.2148  # the 97.5 % point of Student's t at 50/17 degrees of freedom
    half = t * math.sqrt(5 / 3)
    assert (result.low, result.high) == (pytest.approx(-3 - half, abs=0.01), pytest.approx(-3 + half, abs=0.01))
    assert result.verdict == "not told apart"


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([1.0, 1.1, 0.9], [5.0, 5.1, 4.9], "lower"),
        ([5.0, 5.1, 4.9], [1.0, 1.1, 0.9], "higher"),
        ([1.0, 9.0], [2.0, 3.0], "not told apart"),
        ([1.0], [2.0, 3.0], "no verdict"),
        ([1.0, 2.0], [9.0], "no verdict"),
        ([1.0, 1.0], [2.0, 2.0], "lower"),
        ([1.0, 1.0], [1.0, 1.0], "not told apart"),
    ],
)
def test_verdicts(a, b, verdict):
    assert compare(a, b).verdict == verdict


def test_more_comparisons_ask_for_more():
    alone, among_ten = (compare([1.0, 1.2, 1.1], [1.5, 1.6, 1.4], comparisons=n) for n in (1, 10))
    assert among_ten.low < alone.low < alone.high < among_ten.high


@pytest.mark.parametrize(("a", "b", "n"), [([], [1.0], 1), ([1.0], [math.nan], 1), ([1.0], [2.0], 0)])
def test_what_cannot_be_compared_is_refused(a, b, n):
    with pytest.raises(ValueError, match="compare takes two groups of finite values"):
        compare(a, b, comparisons=n)


def test_the_interval_of_a_mean():
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == (2.0, pytest.approx(2 - 2.484, abs=1e-3), pytest.approx(2 + 2.484, abs=1e-3))
    assert math.isnan(mean_interval([1.0])[1])


def test_pairs_are_compared_by_their_differences():
    """Differences 1, 2 and 3: mean 2, standard error 1 / sqrt(3), Student's factor 4.303 at two degrees of freedom."""
    result = paired([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert (result.difference, result.n, result.verdict) == (2.0, (3, 3), "not told apart")
    assert result.low == pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-3)
    assert paired([11.0, 22.1, 33.0], [10.0, 21.0, 32.0]).verdict == "higher"  # however far the pairs lie apart
    assert paired([10.0, 21.0, 32.0], [11.0, 22.1, 33.0]).verdict == "lower"
    assert paired([1.0], [0.0]).verdict == "no verdict"
    for a, b in (([], []), ([1.0], [1.0, 2.0]), ([math.nan], [1.0])):
        with pytest.raises(ValueError, match="as many finite values on both sides"):
            paired(a, b)
