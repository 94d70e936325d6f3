"""A window taken apart, by a dimension or by time, with what is left over as a part of its own."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from flowledger.errors import QuestionError
from flowledger.questions.groups import MOST_ROWS, NOTHING
from flowledger.questions.over import HOURS, Over
from flowledger.questions.rows import Percentiles, Slice, Sums

__all__ = ["Part", "largest_and_others", "parts", "periods", "whole"]

NO_VALUE, OTHERS, ALL = "(none)", "(others)", "(all)"
WITH_PERCENTILES = ("model", "feature", "experiment")
MS_OF_AN_HOUR = 3_600_000
WITHOUT_SUM = ("first_ms", "last_ms")
SUMMED = [name for name in Sums.__struct_fields__ if name not in WITHOUT_SUM]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What some calls of a window add up to; `start_ms` is a span of time's, else None.

    `cost_usd` is None where something cost and nobody knows what; `unpriced` calls are not in it.
    `estimated_cost_usd`, a part of it, rests on the estimated tokens of `estimated` calls.
    `error_rate` is in per cent. Percentiles are None where they are not asked for.
    """

    name: str
    start_ms: int | None = None
    calls: int
    failed: int
    error_rate: float
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost_usd: float | None
    unpriced: int
    estimated: int
    estimated_cost_usd: float
    mean_latency_ms: float | None
    p50_latency_ms: float | None = None
    p95_latency_ms: float | None = None

    @classmethod
    def of(
        cls,
        name: str,
        sums: Sums,
        speed: Percentiles = Percentiles(),  # noqa: B008 - frozen
        start_ms: int | None = None,
    ) -> "Part":
        """The part of this name."""
        return cls(
            name=name,
            start_ms=start_ms,
            calls=sums.calls,
            failed=sums.failed,
            error_rate=sums.error_rate,
            input_tokens=sums.input_tokens,
            output_tokens=sums.output_tokens,
            total_tokens=sums.total_tokens,
            cost_usd=sums.spend_usd,
            unpriced=sums.unpriced,
            estimated=sums.estimated,
            estimated_cost_usd=sums.estimated_cost_usd,
            mean_latency_ms=sums.mean_latency_ms if sums.calls else None,
            p50_latency_ms=speed.p50,
            p95_latency_ms=speed.p95,
        )


def whole(over: Over) -> Part:
    """All calls of the window."""
    return Part.of(ALL, over.sums(), over.percentiles())


def parts(over: Over, dimension: str, measure: str, limit: int) -> list[Part]:
    """The largest parts by one dimension, and the rest as one, so that they add up to the whole.

    Args:
        over: the window.
        dimension: what `Over.by` takes.
        measure: one of `ORDERS`, which the largest parts have most of.
        limit: most parts beside the rest.

    Raises:
        QuestionError: there is no such dimension.
    """
    shown, others = largest_and_others(over, dimension, limit, measure)
    speeds = over.percentiles_by(dimension) if dimension in WITH_PERCENTILES else {}
    named = [
        Part.of(
            NO_VALUE if row.value is None else row.value, row, speeds.get(row.value, Percentiles())
        )
        for row in shown
    ]
    return [*named, Part.of(OTHERS, others)] if others else named


def largest_and_others(
    over: Over, dimension: str, limit: int, order: str = "calls"
) -> tuple[list[Slice], Sums | None]:
    """Return the largest parts by one dimension, and the sums of all others; None without others.

    Args:
        over: the window.
        dimension: what `Over.by` takes.
        limit: most parts, below the 10,000 of any answer.
        order: one of `ORDERS`, which the largest parts have most of.

    Raises:
        QuestionError: there is no such dimension or order.
    """
    rows = over.by(dimension, limit + 1, order)
    shown = rows[:limit]
    return shown, _without(over.sums(), shown) if len(rows) > limit else None


def periods(over: Over, period: str) -> list[Part]:
    """The window by `day` or `hour`, from the first call on, those without calls included.

    Raises:
        QuestionError: there is no such period, or too many of them.
    """
    rows = {row.start_ms: row for row in over.trend(period)}
    if not rows:
        return []
    length = HOURS[period] * MS_OF_AN_HOUR
    starts = range(min(rows), max(max(rows) + 1, over.window.end_ms), length)
    if len(starts) > MOST_ROWS:
        raise QuestionError(f"these are {len(starts):,} {period}s: ask for a shorter window")
    return [_period(start, rows.get(start), period) for start in starts]


def _period(start_ms: int, row: Sums | None, period: str) -> Part:
    moment = datetime.fromtimestamp(start_ms / 1000, UTC)
    name = f"{moment:%Y-%m-%d}" if period == "day" else f"{moment:%Y-%m-%d %H:00}"
    return Part.of(name, NOTHING if row is None else row, start_ms=start_ms)


def _without(sums: Sums, rows: Sequence[Slice]) -> Sums:
    """What is left of the sums without these rows."""
    left = {name: getattr(sums, name) - sum(getattr(row, name) for row in rows) for name in SUMMED}
    if not left["priced"]:
        left["cost_usd"] = 0.0  # and not what adding floats leaves over
    return msgspec.structs.replace(sums, **left)
