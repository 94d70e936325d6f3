"""The charts there are: each takes rows that questions answer, and gives a `Chart`."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from flowledger import latency
from flowledger.charts import drawings, numbers
from flowledger.charts.chart import Chart
from flowledger.questions.rows import Period, PeriodSlice, Slice, Sums
from flowledger.questions.window import Window

__all__ = ["MEASURES", "bars", "error_types", "latencies", "over_time", "spend_and_calls"]

MS_OF_A_PERIOD = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
NAMED = {"minute": numbers.minute, "hour": numbers.minute, "day": numbers.day}
TALL, TALLER = 240, 320
BARS_HEIGHT, THINNEST, THICKEST = 280, 28, 44  # of lying bars together, and of each
MOST_BARS, MOST_SERIES = 10, 7
LEAST_REST = 1e-9  # below that it is what adding floats leaves over
ROOM = 1.45  # the number stands beside the longest bar
OTHERS, NO_VALUE = "others", "(none)"
MOST_SPANS = 4000
MOST_TICKS = 8
# Between the labels of an axis of time, in spans of it.
TICKS = {
    "minute": (1, 5, 10, 15, 30, 60, 120, 240),
    "hour": (1, 2, 3, 4, 6, 12, 24, 48, 96),
    "day": (1, 2, 4, 7, 14, 28, 56, 112, 365),
}
LABELLED = {"minute": numbers.clock, "hour": numbers.clock, "day": numbers.day}
COARSER = 3  # buckets of 4 % drawn as one of 12 %
# What can be drawn: the attribute of sums, what a title calls it, and how it is written.
MEASURES = {
    "cost_usd": ("Spend", "US dollars", numbers.amount),
    "calls": ("Calls", "calls", lambda value: numbers.count(round(value))),
    "total_tokens": ("Tokens", "tokens", lambda value: numbers.short_count(round(value))),
    "failed": ("Failed calls", "calls", lambda value: numbers.count(round(value))),
}


def spend_and_calls(rows: Sequence[Period], window: Window, period: str = "day") -> Chart:
    """Spend and calls over time, with nothing where there were no calls.

    Args:
        rows: what `Over.trend(period)` answers.
        window: of that question; spans of time that it cuts are dashed.
        period: `day` or `hour`.
    """
    spans = _Spans(window, period, (row.start_ms for row in rows))
    found = {row.start_ms: row for row in rows}
    kinds = ((drawings.SPEND, "cost_usd"), (drawings.CALLS, "calls"))
    points = [
        {
            "start": start,
            "kind": kind,
            "amount": getattr(found[start], name) if start in found else 0,
            "when": spans.named(start),
            "spend": _spent(found.get(start)),
            "calls": numbers.count(found[start].calls if start in found else 0),
            "stretch": stretch,
        }
        for kind, name in kinds
        for stretch, start in spans.stretches()
    ]
    total, calls = sum(row.cost_usd for row in rows), sum(row.calls for row in rows)
    return Chart(
        title=f"Spend and calls per {period}",
        summary=f"{numbers.amount(total)} and {numbers.count(calls)} calls in all",
        head=(period.capitalize(), "Spend", "Calls"),
        rows=[(spans.named(r.start_ms), _spent(r), numbers.count(r.calls)) for r in rows],
        drawing=drawings.with_rows(
            drawings.spend_and_calls(),
            points,
            **spans.axis(),
            money=_form("cost_usd", max((row.cost_usd for row in rows), default=0)),
            number=_form("calls", max((row.calls for row in rows), default=0)),
        ),
        height=TALL,
    )


def bars(
    rows: Sequence[Slice], dimension: str, measure: str = "cost_usd", whole: Sums | None = None
) -> Chart:
    """The largest parts, longest first, the rest as one.

    Args:
        rows: what `Over.by(dimension)` answers.
        dimension: in words, for the title.
        measure: one of `MEASURES`.
        whole: what `Over.sums()` answers, when the rows may not be all there are.
    """
    name, _, written = MEASURES[measure]
    ranked = sorted(rows, key=lambda row: -getattr(row, measure))
    kept = ranked if len(ranked) <= MOST_BARS else ranked[: MOST_BARS - 1]
    total = getattr(whole, measure) if whole else sum(getattr(row, measure) for row in rows)
    shown = [(_name(row.value), *_amount(row, measure)) for row in kept]
    rest = total - sum(amount for _, amount, _ in shown)
    if rest > total * LEAST_REST:
        shown.append((OTHERS, rest, written(rest)))
    told = [(who, amount, text, _share(amount, total)) for who, amount, text in shown]
    return Chart(
        title=f"{name} by {dimension}",
        summary=_in_words(measure, total, [who for who, *_ in told]),
        head=(dimension.capitalize(), name, "Share"),
        rows=[(who, text, share) for who, _, text, share in told],
        drawing=drawings.with_rows(
            drawings.bars(),
            [
                {"name": who, "amount": amount, "text": text, "share": share}
                for who, amount, text, share in told
            ],
            most=max((amount for _, amount, *_ in told), default=0) * ROOM or 1,
        ),
        height=_height(len(told)),
    )


def error_types(rows: Sequence[PeriodSlice], window: Window, period: str = "day") -> Chart:
    """What failed over time, by type: rows of `Over.trend_by("error_type", period)`."""
    failed = [row for row in rows if row.failed]
    return over_time(failed, "error type", window, period, "failed")


def over_time(
    rows: Sequence[PeriodSlice],
    dimension: str,
    window: Window,
    period: str = "day",
    measure: str = "cost_usd",
) -> Chart:
    """One measure over time by a dimension, the largest parts at the bottom, the rest as one.

    Args:
        rows: what `Over.trend_by(dimension, period)` answers.
        dimension: in words, for the title.
        window: of that question.
        period: `day` or `hour`.
        measure: one of `MEASURES`.
    """
    name, unit, written = MEASURES[measure]
    spans = _Spans(window, period, (row.start_ms for row in rows))
    totals: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        totals[_name(row.value)] += getattr(row, measure)
    largest = sorted(totals, key=lambda who: (who == OTHERS, -totals[who], who))
    kept = largest if len(largest) <= MOST_SERIES else largest[: MOST_SERIES - 1]
    kept = [who for who in kept if who != OTHERS]
    order = {who: place for place, who in enumerate([*kept, OTHERS])}
    amounts: defaultdict[tuple[int, int, str], float] = defaultdict(float)
    heights: defaultdict[int, float] = defaultdict(float)
    known: set[tuple[int, int, str]] = set()
    for row in rows:
        who = _name(row.value) if _name(row.value) in order else OTHERS
        at = (row.start_ms, order[who], who)
        amounts[at] += getattr(row, measure)
        if _is_known(row, measure):
            known.add(at)
        heights[row.start_ms] += getattr(row, measure)
    points = [
        {
            "start": start,
            "end": start + MS_OF_A_PERIOD[period],
            "name": who,
            "amount": amount,
            "place": place,
            "text": written(amount) if (start, place, who) in known else numbers.UNKNOWN,
            "when": spans.named(start),
        }
        for (start, place, who), amount in sorted(amounts.items())
    ]
    edges = [  # an axis goes from the first span to the last, whatever is in them
        {"start": start, "end": start + MS_OF_A_PERIOD[period], "name": largest[0], "amount": 0}
        for start in (*spans.starts[:1], *spans.starts[-1:])
    ]
    form = _form(measure, max(heights.values(), default=0))
    return Chart(
        title=f"{name} per {period} by {dimension}",
        summary=_in_words(measure, sum(totals.values()), largest),
        head=(period.capitalize(), dimension.capitalize(), name),
        rows=[(str(one["when"]), str(one["name"]), str(one["text"])) for one in points],
        drawing=drawings.with_rows(
            drawings.stacked(f"{name}, {unit}" if unit.lower() not in name.lower() else name),
            [*points, *edges],
            **spans.axis(MS_OF_A_PERIOD[period] // 2),
            form=form,
        ),
        height=TALL,
    )


def latencies(histograms: Mapping[str | None, Iterable[tuple[int, int]]]) -> Chart:
    """How latencies spread, one part beside the other, each as shares of its own calls.

    Args:
        histograms: buckets of `flowledger.latency` with their calls, by name: what
            `Over.histograms(dimension)` answers.
    """
    points, rows = [], []
    for place, (name, histogram) in enumerate(histograms.items()):
        counted = list(histogram)
        coarse: dict[int, int] = {}
        for bucket, calls in counted:
            coarse[bucket // COARSER] = coarse.get(bucket // COARSER, 0) + calls
        points += [{"place": place, **one} for one in _density(_name(name), coarse)]
        rows.append(
            (
                _name(name),
                numbers.count(sum(calls for _, calls in counted)),
                *(numbers.milliseconds(latency.percentile(counted, p)) for p in (50, 90, 95, 99)),
            )
        )
    return Chart(
        title="Distribution of latency",
        summary="; ".join(
            f"{name}: half of {calls} calls within {p50}" for name, calls, p50, *_ in rows
        ),
        head=("Name", "Calls", "p50", "p90", "p95", "p99"),
        rows=rows,
        drawing=drawings.with_rows(drawings.distribution(), points),
        height=TALLER,
    )


def _density(name: str, coarse: dict[int, int]) -> list[dict[str, object]]:
    if not coarse:
        return []
    total = sum(coarse.values())
    points = []
    for bucket in range(min(coarse) - 1, max(coarse) + 2):
        calls = coarse.get(bucket, 0)
        low, high = (latency.middle_of(bucket * COARSER + edge) for edge in (0, COARSER))
        points.append(
            {
                "name": name,
                "ms": math.sqrt(low * high),
                "share": calls / total,
                "between": f"{numbers.milliseconds(low)} to {numbers.milliseconds(high)}",
                "text": numbers.percent(100 * calls / total),
                "calls": numbers.count(calls),
            }
        )
    return points


class _Spans:
    """The spans of time from the first to the last, and which the window cuts."""

    def __init__(self, window: Window, period: str, there: Iterable[int]) -> None:
        self._window = window
        self._period = period
        self._length = length = MS_OF_A_PERIOD[period]
        known = list(there)
        if not known:
            self.starts = range(0)
            return
        first = max(window.start_ms // length * length, min(known))
        last = window.end_ms - 1
        if last - first > MOST_SPANS * length:  # as of a window without an end
            last = max(known)
        self.starts = range(first, last + 1, length)

    def named(self, start: int) -> str:
        """What a span of time is called."""
        name = NAMED[self._period](start)
        return f"{name} (part)" if self._cuts(start) else name

    def axis(self, after_ms: int = 0) -> dict[str, object]:
        """Where labels stand on the axis, so long after a span begins, and what they say."""
        steps = TICKS[self._period]
        step = next((n for n in steps if len(self.starts) <= n * MOST_TICKS), steps[-1])
        apart = step * self._length
        # Days are counted from the latest one, hours and minutes by the clock.
        first = self.starts[-1] % apart if self._period == "day" and self.starts else 0
        starts = [start for start in self.starts if start % apart == first]
        label = LABELLED[self._period]
        return {
            "ticks": [start + after_ms for start in starts],
            "labels": {str(start + after_ms): label(start) for start in starts},
        }

    def stretches(self) -> Iterator[tuple[str, int]]:
        """Where lines go: `solid` through whole spans, dashed from them to those that are cut.

        What is alone has no line.
        """
        if len(self.starts) == 1:
            yield "alone", self.starts[0]
        for start in self.starts:
            if not self._cuts(start):
                yield "solid", start
        for start in self.starts[1:]:
            before = start - self._length
            if self._cuts(before) or self._cuts(start):
                yield f"dashed {before}", before
                yield f"dashed {before}", start

    def _cuts(self, start: int) -> bool:
        return start < self._window.start_ms or start + self._length > self._window.end_ms


def _spent(row: Sums | None) -> str:
    return numbers.amount(0.0 if row is None else row.spend_usd)


def _amount(row: Slice, measure: str) -> tuple[float, str]:
    amount = getattr(row, measure)
    written = MEASURES[measure][2]
    return amount, written(amount) if _is_known(row, measure) else numbers.UNKNOWN


def _is_known(row: Sums, measure: str) -> bool:
    return measure != "cost_usd" or row.spend_usd is not None


def _in_words(measure: str, total: float, names: Sequence[str]) -> str:
    _, unit, written = MEASURES[measure]
    amount = written(total) if measure == "cost_usd" else f"{written(total)} {unit}"
    return f"{amount} in all, most of it: {names[0]}" if names else f"{amount} in all"


def _name(value: str | None) -> str:
    return NO_VALUE if value is None else value


def _height(bars: int) -> int:
    return max(1, bars) * min(THICKEST, max(THINNEST, BARS_HEIGHT // max(1, bars)))


def _share(amount: float, total: float) -> str:
    return numbers.percent(100 * amount / total if total else 0.0)


def _form(measure: str, most: float) -> str:
    """How d3 writes the numbers of an axis that goes up to here."""
    if measure != "cost_usd":
        return ",.0f" if most < 10_000 else "~s"
    if most >= 10_000:
        return "$~s"
    return "$,.0f" if most >= 10 else "$.2f" if most >= 0.1 else "$.4~f"
