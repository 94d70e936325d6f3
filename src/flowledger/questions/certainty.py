"""How sure a number is that comes from so many calls: intervals at 95 %.

Sources: E. B. Wilson, JASA 22 (1927), for a rate; R. G. Newcombe, Statistics in Medicine 17 (1998),
method 10, for the difference of two rates; B. L. Welch, Biometrika 34 (1947), for the difference of
two means; H. A. David and H. N. Nagaraja, Order Statistics (2003), 7.1, for a percentile.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from flowledger.latency import middle_of

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

    Args:
        histogram: buckets of `flowledger.latency` and how many calls are in each.
        percent: 0 to 100.
    """
    counted = sorted(histogram)
    count, share = sum(calls for _, calls in counted), percent / 100
    half = Z * math.sqrt(count * share * (1 - share))
    first, last = math.floor(count * share - half), math.ceil(count * share + half) + 1
    if first < 1 or last > count:
        return None
    return Interval(_ranked(counted, first), _ranked(counted, last))


def _ranked(counted: list[tuple[int, int]], rank: int) -> float:
    """The latency of the call at this rank, from 1."""
    seen = 0
    for bucket, calls in counted:
        seen += calls
        if seen >= rank:
            return middle_of(bucket)
    raise ValueError(f"there are only {seen} calls")


def _t(freedom: float) -> float:
    """The quantile of Student's t with 2.5 % above it.

    Source: Abramowitz and Stegun (1964), 26.7.5, within 1 % from 3 degrees of freedom on; below
    that a table.
    """
    if freedom < 3:
        return 12.7062 if freedom < 2 else 4.3027
    terms = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
        (79 * Z**9 + 776 * Z**7 + 1482 * Z**5 - 1920 * Z**3 - 945 * Z) / 92160,
    )
    return Z + sum(term / freedom**power for power, term in enumerate(terms, 1))
