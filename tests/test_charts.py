"""Charts: what is drawn, said and listed is what the rows say, and a real Vega-Lite draws it."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import vl_convert

from flowledger import charts, latency
from flowledger.charts import numbers
from flowledger.questions import Period, PeriodSlice, Slice, Sums, Window

R = TypeVar("R", bound=Sums)
DAY_MS = 86_400_000
NOON = 20_000 * DAY_MS + DAY_MS // 2
WINDOW = Window(NOON - 3 * DAY_MS, NOON)


def a_row(kind: type[R], **fields: Any) -> R:
    """A row of sums that are 0 unless they are given."""
    return kind(**{**dict.fromkeys(Sums.__struct_fields__, 0), **fields})


def days(*spends: float) -> list[Period]:
    """A call a day up to the window's last one, at these prices."""
    last = NOON // DAY_MS
    return [
        a_row(
            Period,
            start_ms=(last - len(spends) + 1 + place) * DAY_MS,
            calls=1,
            priced=1,
            cost_usd=spend,
        )
        for place, spend in enumerate(spends)
    ]


def points(chart: charts.Chart) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = chart.drawing["datasets"]["rows"]
    return rows


DRAWN: dict[str, Callable[[], charts.Chart]] = {
    "spend and calls": lambda: charts.spend_and_calls(days(1, 2, 3, 4), WINDOW),
    "bars": lambda: charts.bars([a_row(Slice, value="a", cost_usd=1.5, priced=1)], "model"),
    "error types": lambda: charts.error_types(
        [a_row(PeriodSlice, start_ms=NOON - NOON % DAY_MS, value="TimeoutError", failed=3)], WINDOW
    ),
    "latencies": lambda: charts.latencies({"gpt": [(latency.bucket_of(n), 2) for n in (90, 400)]}),
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("theme", [charts.LIGHT, charts.DARK], ids=["light", "dark"])
def test_every_chart_is_drawn_without_a_browser(name: str, theme: charts.Theme) -> None:
    chart = DRAWN[name]()
    drawn = vl_convert.vegalite_to_svg(chart.spec(theme))
    assert chart.title in drawn
    assert theme.background in drawn
    assert theme.series[0] in drawn


def test_days_without_calls_are_zero_and_cut_days_are_dashed() -> None:
    first, _, _, last = days(8, 0, 0, 9)
    chart = charts.spend_and_calls([first, last], WINDOW)
    spend = [point for point in points(chart) if point["kind"] == "Spend"]
    solid = [point["amount"] for point in spend if point["stretch"] == "solid"]
    dashed = [point["amount"] for point in spend if point["stretch"].startswith("dashed")]
    assert [0, 0] == solid
    assert [8, 0, 0, 9] == dashed
    assert [("$8.00", "1"), ("$9.00", "1")] == [row[1:] for row in chart.rows]


def test_one_span_of_time_is_a_point() -> None:
    chart = charts.spend_and_calls(days(8), Window(NOON - DAY_MS // 4, NOON))
    assert ["alone", "alone"] == [point["stretch"] for point in points(chart)]


def test_small_parts_are_added_up_and_what_no_row_has_is_among_them() -> None:
    rows = [a_row(Slice, value=f"m{n}", cost_usd=n, priced=1) for n in range(1, 13)]
    chart = charts.bars(rows, "model", whole=a_row(Sums, cost_usd=88, priced=13))
    assert [f"m{n}" for n in range(12, 3, -1)] == [row[0] for row in chart.rows[:-1]]
    assert ("others", "$16.00", "18.18%") == chart.rows[-1]
    assert "$88.00 in all, most of it: m12" == chart.summary


def test_an_unknown_price_is_a_question_mark_and_never_nothing() -> None:
    unknown = a_row(Slice, value="house-7b", calls=5, unpriced=5)
    free = a_row(Slice, value=None, calls=5)
    day = NOON - NOON % DAY_MS
    spent = [a_row(PeriodSlice, start_ms=day, value="house-7b", calls=5, unpriced=5)]
    over_time = charts.over_time(spent, "model", WINDOW)
    assert ["?"] == [row[2] for row in over_time.rows]
    chart = charts.bars([unknown, free], "model")
    assert [("house-7b", "?"), ("(none)", "$0.00")] == [row[:2] for row in chart.rows]


def test_every_error_is_in_the_chart_whatever_its_type() -> None:
    day = NOON - NOON % DAY_MS
    rows = [a_row(PeriodSlice, start_ms=day, value=f"E{n}", failed=n) for n in range(12)]
    chart = charts.error_types(rows, WINDOW)
    assert sum(range(12)) == sum(point["amount"] for point in points(chart))
    told = [point["name"] for point in points(chart) if "text" in point]
    assert ["E11", "E10", "E9", "E8", "E7", "E6", "others"] == told


def test_a_distribution_adds_up_to_all_calls() -> None:
    histogram = [(bucket, 1 + bucket % 3) for bucket in range(100, 180)]
    chart = charts.latencies({"a": histogram, "b": histogram[:5]})
    for name in "ab":
        share = math.fsum(point["share"] for point in points(chart) if point["name"] == name)
        assert math.isclose(1.0, share)
    p50 = numbers.milliseconds(latency.percentile(histogram, 50))
    assert p50 == chart.rows[0][2]


def test_a_chart_of_nothing_says_so() -> None:
    empty = [
        charts.spend_and_calls([], WINDOW),
        charts.bars([], "model"),
        charts.error_types([], WINDOW),
        charts.latencies({}),
    ]
    assert [True] * 4 == [chart.is_empty for chart in empty]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("$1,854.30", numbers.money(1854.3)),
        ("$0.00", numbers.money(0)),
        ("$0.0120", numbers.money(0.012)),
        ("?", numbers.money(None)),
        ("2.04%", numbers.percent(2.04)),
        ("975 ms", numbers.milliseconds(975.2)),
        ("12.3 s", numbers.milliseconds(12_345)),
        ("332,541", numbers.count(332541)),
        ("176.1M", numbers.short_count(176_100_000)),
        ("9,999", numbers.short_count(9999)),
        ("12.0k", numbers.short_count(12_000)),
        ("5 Oct 14:05", numbers.minute(1_759_673_100_000)),
    ],
)
def test_numbers_read_as_people_write_them(written: str, value: str) -> None:
    assert written == value


def test_a_sparkline_goes_from_edge_to_edge() -> None:
    drawn = charts.sparkline([0, 5, 10])
    assert 'points="2.0,30.0 60.0,16.0 118.0,2.0"' in drawn
    assert "" == charts.sparkline([1])
