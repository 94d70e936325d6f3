"""How sure a number is that comes from so many calls: intervals at 95 %.

Sources: E. B. Wilson, JASA 22 (1927), for a rate; R. G. Newcombe, Statistics in Medicine 17 (1998),
method 10, for the difference of two rates; B. L. Welch, Biometrika 34 (1947), for the difference of
two means; H. A. David and H. N. Nagaraja, Order Statistics (2003), 7.1, for a percentile; W. H.
Press et al., Numerical Recipes (2007), 6.4, for the incomplete beta function behind the last two.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from flowledger.latency import bounds_of

__all__ = [
    "SOURCES",
    "Interval",
    "difference_of_means",
    "difference_of_rates",
    "of_percentile",
    "of_rate",
]

SOURCES = (
    "95 % intervals by Wilson (1927), Newcombe (1998, method 10) and Welch (1947); of percentiles"
    " by order statistics"
)
Z = 1.959963984540054  # of the normal distribution, 2.5 % on each side
TAIL = 0.025
TINY = 1e-300  # stands for 0 in a denominator
CLOSE = 1e-15
MOST_STEPS = 100_000  # some sqrt(count) are needed


class Interval(NamedTuple):
    """From `low` to `high`."""

    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether a difference in here is surely one: 0 is outside."""
        return self.low > 0 or self.high < 0


def of_rate(hits: int, count: int) -> Interval | None:
    """Where a rate lies, 0 to 1; None of nothing."""
    if not count:
        return None
    rate, spread = hits / count, Z * Z / count
    middle = rate + spread / 2
    half = Z * math.sqrt(rate * (1 - rate) / count + spread / (4 * count))
    low, high = ((middle + side * half) / (1 + spread) for side in (-1, 1))
    return Interval(max(0.0, low) if hits else 0.0, min(1.0, high) if hits < count else 1.0)


def difference_of_rates(hits: int, count: int, others: int, of: int) -> Interval | None:
    """Where the first rate less the second lies; None where one of them is of nothing."""
    one, other = of_rate(hits, count), of_rate(others, of)
    if one is None or other is None:
        return None
    rate, second = hits / count, others / of
    return Interval(
        rate - second - math.hypot(rate - one.low, other.high - second),
        rate - second + math.hypot(one.high - rate, second - other.low),
    )


def difference_of_means(
    mean: float, deviation: float, count: int, second: float, second_deviation: float, of: int
) -> Interval | None:
    """Where the first mean less the second lies; None where one is of less than two values."""
    if min(count, of) < 2:
        return None
    one, other = deviation**2 / count, second_deviation**2 / of
    if not one + other:
        return Interval(mean - second, mean - second)
    freedom = (one + other) ** 2 / (one**2 / (count - 1) + other**2 / (of - 1))
    half = _t(freedom) * math.sqrt(one + other)
    return Interval(mean - second - half, mean - second + half)


def of_percentile(histogram: Iterable[tuple[int, int]], percent: float) -> Interval | None:
    """Where a percentile of latency lies, in ms; None where there are too few calls to say.

    The ranks are exact, of the binomial distribution. The ends are those of the buckets that hold
    these ranks, so that the interval is never narrower than that of the latencies themselves.

    Args:
        histogram: buckets of `flowledger.latency` and how many calls are in each.
        percent: 0 to 100.
    """
    counted = sorted(histogram)
    count, share = sum(calls for _, calls in counted), percent / 100
    first, last = _rank(count, share, TAIL), _rank(count, share, 1 - TAIL) + 1
    if first < 1 or last > count:
        return None
    return Interval(
        bounds_of(_bucket_at(counted, first))[0], bounds_of(_bucket_at(counted, last))[1]
    )


def _bucket_at(counted: list[tuple[int, int]], rank: int) -> int:
    """The bucket of the call at this rank, from 1."""
    seen = 0
    for bucket, calls in counted:
        seen += calls
        if seen >= rank:
            return bucket
    raise ValueError(f"there are only {seen} calls")


def _rank(count: int, share: float, chance: float) -> int:
    """The least number of hits in `count` trials that is exceeded with at most `1 - chance`."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if _beta(count - middle, middle + 1, 1 - share) >= chance:
            high = middle
        else:
            low = middle + 1
    return low


def _t(freedom: float) -> float:
    """The quantile of Student's t with 2.5 % above it."""
    share = _where(lambda x: _beta(freedom / 2, 0.5, x) - 2 * TAIL)
    return math.sqrt(freedom * (1 - share) / share)


def _where(rises: Callable[[float], float]) -> float:
    """Where a function that rises from 0 to 1 is 0, to the last digit."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if rises(middle) < 0 else (low, middle)
    return middle


def _beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, with `a` and `b` above 0."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges on the other side
        return 1 - _beta(b, a, 1 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(scale + a * math.log(x) + b * math.log1p(-x))
    return front / a * _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by the modified Lentz method."""
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or TINY)
    value = d
    for m in range(1, MOST_STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            c, d = (1 + term / c) or TINY, 1 / ((1 + term * d) or TINY)
            value *= c * d
        if abs(c * d - 1) < CLOSE:
            break
    return value
