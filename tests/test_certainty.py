"""Intervals: the published examples, and what must hold of any numbers."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from flowledger.latency import bucket_of
from flowledger.questions.certainty import (
    Interval,
    _t,
    difference_of_means,
    difference_of_rates,
    of_percentile,
    of_rate,
)

counts = st.integers(1, 10_000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))


def rounded(interval: Interval | None) -> tuple[float, ...]:
    assert interval is not None
    return tuple(round(end, 4) for end in interval)


@pytest.mark.parametrize(
    ("hits", "count", "expected"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_a_rate_lies_where_newcombe_1998_says(
    hits: int, count: int, expected: tuple[float, float]
) -> None:
    assert expected == rounded(of_rate(hits, count))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0000)),
    ],
)
def test_differences_of_rates_are_those_of_newcombe_1998_method_10(
    one: tuple[int, int], other: tuple[int, int], expected: tuple[float, float]
) -> None:
    assert expected == rounded(difference_of_rates(*one, *other))


@given(one=counts, other=counts)
def test_the_other_way_round_a_difference_has_the_other_sign(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    there, back = difference_of_rates(*one, *other), difference_of_rates(*other, *one)
    assert there is not None
    assert back is not None
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.low <= one[0] / one[1] - other[0] / other[1] <= there.high


@pytest.mark.parametrize("freedom", [0.01, 1, 1.99, 2, 2.99, 3, 5, 10, 30, 1e4, 1e6], ids=str)
def test_students_t_is_that_of_scipy(freedom: float) -> None:
    assert stats.t.ppf(0.975, freedom) == pytest.approx(_t(freedom), rel=1e-8)


@pytest.mark.parametrize("counts", [(12, 8), (2, 2), (3, 3), (200, 5), (5000, 4000)], ids=str)
def test_a_difference_of_means_is_that_of_scipy(counts: tuple[int, int]) -> None:
    one, other = (27.5, 2.4, counts[0]), (22.9, 3.1, counts[1])
    asked = stats.ttest_ind_from_stats(*one, *other, equal_var=False)
    half = stats.t.ppf(0.975, _freedom(one, other)) * 4.6 / asked.statistic
    found = difference_of_means(*one, *other)
    assert found is not None
    assert (4.6 - half, 4.6 + half) == pytest.approx(tuple(found), rel=1e-8)


def _freedom(*samples: tuple[float, float, int]) -> float:
    parts = [deviation**2 / count for _, deviation, count in samples]
    below = [part**2 / (count - 1) for part, (*_, count) in zip(parts, samples, strict=True)]
    return float(sum(parts) ** 2 / sum(below))


def test_of_too_few_nothing_is_said() -> None:
    assert None is of_rate(0, 0)
    assert None is difference_of_rates(1, 2, 0, 0)
    assert None is difference_of_means(1.0, 0.0, 1, 2.0, 1.0, 9)
    assert None is of_percentile([(30, 10)], 95)
    assert Interval(-1.0, -1.0) == difference_of_means(1.0, 0.0, 5, 2.0, 0.0, 9)


@pytest.mark.parametrize("count", [73, 100, 350, 5000], ids=str)
def test_a_percentile_lies_between_the_exact_ranks_that_scipy_finds(count: int) -> None:
    chance = random.Random(count)
    latencies = [chance.lognormvariate(7, 1) for _ in range(count)]
    interval = stats.quantile_test(latencies, p=0.95).confidence_interval(0.95)
    found = of_percentile([(bucket_of(ms), 1) for ms in latencies], 95)
    assert found is not None
    assert found.low < interval.low <= found.low * 1.04 * (1 + 1e-9)
    assert interval.high <= found.high < interval.high * 1.04 * (1 + 1e-9)


@pytest.mark.parametrize("milliseconds", [0.0, 0.0004, 0.25, 1_000_000.0], ids=str)
def test_the_interval_of_equal_latencies_holds_the_latency(milliseconds: float) -> None:
    found = of_percentile([(bucket_of(milliseconds), 500)], 95)
    assert found is not None
    assert found.low <= milliseconds <= found.high


def test_percentiles_of_samples_lie_in_their_intervals_as_often_as_promised() -> None:
    chance = random.Random(3)
    true = 100 * 0.95  # of latencies spread evenly up to 100 ms
    inside = 0
    for _ in range(400):
        histogram: dict[int, int] = {}
        for _ in range(300):
            bucket = bucket_of(chance.uniform(0, 100))
            histogram[bucket] = histogram.get(bucket, 0) + 1
        found = of_percentile(histogram.items(), 95)
        assert found is not None
        inside += found.low <= true <= found.high
    assert inside >= 380
