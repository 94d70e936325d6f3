"""Buckets of latency: bounds that grow by 4 %, so a percentile read from them is within 2 %.

Source: C. Masson, J. E. Rim, H. K. Lee, DDSketch (VLDB 2019): buckets of equal relative width can
be added up, over hours and machines, without losing accuracy.
"""

import math
from collections.abc import Iterable

__all__ = ["bounds_of", "bucket_of", "middle_of", "percentile"]

LEAST_MS = 0.001  # anything shorter is one bucket
LARGEST_BUCKET = 950  # some 480 years
_growth = math.log(1.04)


def bucket_of(milliseconds: float) -> int:
    """The bucket of a latency, 0 for all up to a microsecond."""
    if not milliseconds > LEAST_MS:
        return 0
    return min(LARGEST_BUCKET, math.ceil(math.log(milliseconds / LEAST_MS) / _growth))


def middle_of(bucket: int) -> float:
    """The latency in milliseconds that is off by the same factor from both bounds of a bucket."""
    if bucket <= 0:
        return LEAST_MS / 2
    return LEAST_MS * math.exp((bucket - 0.5) * _growth)


def bounds_of(bucket: int) -> tuple[float, float]:
    """The milliseconds between which the latencies of a bucket lie."""
    if bucket <= 0:
        return 0.0, LEAST_MS
    return LEAST_MS * math.exp((bucket - 1) * _growth), LEAST_MS * math.exp(bucket * _growth)


def percentile(histogram: Iterable[tuple[int, int]], percent: float) -> float | None:
    """The latency in milliseconds that so many per cent of calls do not exceed; None without calls.

    Args:
        histogram: buckets and how many calls are in each.
        percent: 0 to 100; nearest rank.
    """
    counted = sorted(histogram)
    rank = percent / 100 * sum(calls for _, calls in counted)
    seen = 0
    for bucket, calls in counted:
        seen += calls
        if calls and seen >= rank:
            return middle_of(bucket)
    return None
