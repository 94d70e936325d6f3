"""Questions to one window of the ledger: what its calls add up to, and which they were."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from flowledger.errors import QuestionError
from flowledger.questions.groups import MOST_ROWS, Group, Groups
from flowledger.questions.rows import (
    EveryCall,
    FailedCall,
    Found,
    Lag,
    Page,
    Percentiles,
    Period,
    PeriodSlice,
    PromptSlice,
    ReceivedCall,
    RecentCall,
    Run,
    Session,
    Slice,
    Sums,
)
from flowledger.questions.searching import (
    HAS_TEXT,
    MOST_SEARCHED,
    RANKS,
    Position,
    Searched,
    has_text,
    patterns,
    ranked_page,
    ranked_position,
    searched,
)
from flowledger.questions.sources import SUMS, Sources
from flowledger.questions.speeds import Histogram, Speeds, percentiles_of
from flowledger.questions.window import Filters, Window
from flowledger.store.rollup import FACETS, GROUPED, OF_LATENCIES

__all__ = ["DIMENSIONS", "ORDERS", "PAGE_TOKEN", "RANKS", "Over"]

R = TypeVar("R", bound=msgspec.Struct)

# What calls can be told apart by, and the column it is in; `tag:<key>` is one more.
_OTHERWISE_NAMED = {"experiment": "experiment_id", "status": "success"}
DIMENSIONS = {
    **_OTHERWISE_NAMED,
    **{
        name: name
        for name in (*GROUPED, *FACETS, "session_id")
        if name not in _OTHERWISE_NAMED.values()
    },
}
# What parts can be sorted by: `value` is their name, rates and averages come from sums.
ORDERS = {
    "value": "value",
    "calls": "SUM(calls)",
    "failed": "SUM(failed)",
    "error_rate": "1.0 * SUM(failed) / SUM(calls)",
    "input_tokens": "SUM(input_tokens)",
    "output_tokens": "SUM(output_tokens)",
    "total_tokens": "SUM(total_tokens)",
    "cost_usd": "SUM(cost_usd)",
    "mean_latency_ms": "SUM(latency_ms) / SUM(calls)",
    "mean_confidence": "COALESCE(SUM(confidence) / NULLIF(SUM(confidences), 0), -1)",
    "last_ms": "MAX(last_ms)",
}
# The user of a session that has had only one.
ONE_USER = "CASE WHEN COUNT(DISTINCT user_id) = 1 THEN MAX(user_id) END"
OTHERS = "others"
LEAST_SPREAD = 1e-4  # of the mean: there doubles give a deviation with 7 digits
HOURS = {"minute": 0, "hour": 1, "day": 24}
MS_OF_AN_HOUR, MS_OF_A_MINUTE = 3_600_000, 60_000
MOST_MINUTES = 1440
SHORTEST_STRETCH_MS, LONGER = 60_000, 8

SPAN = (
    "(SELECT s.content FROM spans s"
    " WHERE s.trace_id = 'tr-' || c.id AND s.span_id = SUBSTR(c.id, 17))"
)

_GROUPS = ", ".join(f"g.{name}" for name in GROUPED)
PAGE_TOKEN = r"([0-9]{1,15})-(.{1,8000})"
_token = re.compile(PAGE_TOKEN, re.DOTALL)


class Over:
    """One window of the ledger, and the calls in it that its filters let through.

    Made by `Ledger.over`. Sums and percentiles count every one of them: a roll-up answers for whole
    hours and days, single calls for the rest; a filter by user, session or tag reads single calls.

    Args:
        ask: asks one named question: its row, its name, what its holes are filled with, its values.
        window: of time.
        filters: which calls.
        experiments: the name of every experiment by its id.
        stream: asks as `ask` does, and reads rows as they are wanted.
    """

    def __init__(
        self,
        ask: Callable[..., list[Any]],
        window: Window,
        filters: Filters,
        experiments: dict[int, str],
        stream: Callable[..., Iterator[Any]],
    ) -> None:
        self.window = window
        self._question = ask
        self._stream = stream
        self._filters = filters
        self._experiments = experiments

    def sums(self) -> Sums:
        """What all calls of the window add up to."""
        return self._sums(self._sources())

    def sums_before(self) -> Sums:
        """The same of the window of the same length before it."""
        return self._sums(self._sources(self.window.before()))

    def percentiles(self) -> Percentiles:
        """Percentiles of latency, failed calls included."""
        sources = self._sources()
        holes = {"latencies": sources.latencies()}
        found = self._ask(_Bucket, "latency_histogram", sources, holes)
        return percentiles_of([(row.latency_bucket, row.calls) for row in found])

    def deviations(self, sums: Sums) -> tuple[float, float]:
        """Return the sample standard deviations of latency, in ms, and of confidence.

        Sums of squares lose those that are small beside their mean; then each call is read.

        Args:
            sums: what `sums()` answered.
        """
        kept = (sums.latency_std_ms, sums.confidence_std)
        means = (sums.mean_latency_ms, sums.mean_confidence)
        if all(std >= LEAST_SPREAD * abs(mean) for std, mean in zip(kept, means, strict=True)):
            return kept
        sources = self._sources()
        around = {"latency_ms": means[0], "confidence": means[1]}
        [found] = self._ask(_Squares, "squares_around", sources, {"calls": sources.calls}, **around)
        return (
            math.sqrt(found.latency_squared / max(1, sums.calls - 1)),
            math.sqrt(found.confidence_squared / max(1, sums.confidences - 1)),
        )

    def by(
        self,
        dimension: str,
        limit: int = MOST_ROWS,
        order: str = "calls",
        *,
        ascending: bool = False,
    ) -> list[Slice]:
        """The sums by one dimension, the most calls first unless another order is asked for.

        Calls without a value are a row, too, so the rows add up to `sums()`.

        Args:
            dimension: one of `DIMENSIONS`, or `tag:<key>` for the values of one of the caller's own
                tags.
            limit: most rows.
            order: one of `ORDERS`.
            ascending: the least first.

        Raises:
            QuestionError: there is no such dimension or order.
        """
        column = _column(dimension)
        sources = self._sources()
        holes = {"value": _value(column), "dimension": sources.dimension(column)}
        orders = {**ORDERS, "value": _value(column)}
        holes["order"] = _order(order, orders, ascending)
        rows = self._ask(_AnySlice, "numbers_by", sources, holes, limit=_bounded(limit))
        named = self._namer(column)
        return [_as(Slice, row, value=named(row.value)) for row in rows]

    def percentiles_by(self, dimension: str) -> dict[str | None, Percentiles]:
        """Percentiles of latency by `experiment`, `feature` or `model`.

        Raises:
            QuestionError: that is another dimension.
        """
        return {value: percentiles_of(some) for value, some in self.histograms(dimension).items()}

    def histograms(self, dimension: str) -> dict[str | None, Histogram]:
        """Buckets of `flowledger.latency` with their calls, by `experiment`, `feature` or `model`.

        Raises:
            QuestionError: that is another dimension.
        """
        column = _of_latencies(dimension)
        sources = self._sources()
        holes = {"value": column, "latencies": sources.latencies()}
        named = self._namer(column)
        buckets = defaultdict(list)
        for row in self._ask(_Histogram, "latency_histograms_by", sources, holes):
            buckets[named(row.value)].append((row.latency_bucket, row.calls))
        return buckets

    def speeds(self, dimension: str, period: str = "day") -> Speeds:
        """Percentiles of all calls, by one dimension and over time, from one reading.

        Raises:
            QuestionError: as `histograms` and `trend`.
        """
        column, hours = _of_latencies(dimension), self._hours(period)
        sources = self._sources(by_minute=not hours)
        holes = {"moments": str(hours or 1), "value": column, "latencies": sources.latencies(hours)}
        named = self._namer(column)
        buckets = defaultdict(list)
        question = "latency_histograms_by_period_and"
        for row in self._ask(_NumberedHistogram, question, sources, holes):
            start_ms = row.period * _length_ms(hours)
            buckets[start_ms, named(row.value)].append((row.latency_bucket, row.calls))
        return Speeds(buckets)

    def groups(self) -> Groups:
        """The sums by all that calls are grouped by, to be told apart without asking again."""
        sources = self._sources()
        holes = {"columns": _GROUPS, "grouped": sources.groups()}
        return Groups(self._ask(Group, "numbers_by_group", sources, holes), self._of_groups)

    def by_prompt(self) -> list[PromptSlice]:
        """The sums by prompt version, the one used last first; a hash where there is no version."""
        sources = self._sources()
        rows = self._ask(
            PromptSlice, "numbers_by_prompt", sources, {"measured": sources.measured()}
        )
        together: dict[str | None, PromptSlice] = {}
        for row in rows:  # the newest of a version comes last
            there = together.get(row.value)
            together[row.value] = row if there is None else _added(there, row)
        return sorted(together.values(), key=lambda row: row.last_ms or 0, reverse=True)

    def trend(self, period: str = "day") -> list[Period]:
        """The sums by `day`, `hour` or `minute` (UTC), those without calls left out.

        Raises:
            QuestionError: there is no such period, or more than a day is asked for by the minute.
        """
        hours = self._hours(period)
        sources = self._sources(by_minute=not hours)
        holes = {"moments": str(hours or 1), "measured": sources.totals(hours)}
        return [
            _as(Period, row, start_ms=row.period * _length_ms(hours))
            for row in self._ask(_NumberedPeriod, "numbers_by_period", sources, holes)
        ]

    def trend_by(
        self, dimension: str, period: str = "day", among: Sequence[str | None] | None = None
    ) -> list[PeriodSlice]:
        """The sums by `day`, `hour` or `minute` (UTC) and by one dimension, as `trend` and `by`.

        Args:
            dimension: as `by`.
            period: as `trend`.
            among: the texts to tell apart, where there may be very many; all else is `others`.

        Raises:
            QuestionError: as `trend`, or there is no such dimension.
        """
        hours = self._hours(period)
        column = _column(dimension)
        sources = self._sources(by_minute=not hours)
        value = _value(column)
        if among is not None:
            value = _among(value, among, sources.parameters)
        holes = {"moments": str(hours or 1), "value": value}
        holes["dimension"] = sources.dimension(column, hours)
        named = self._namer(column)
        return [
            _as(
                PeriodSlice,
                row,
                value=named(row.value),
                start_ms=row.period * _length_ms(hours),
            )
            for row in self._ask(_NumberedSlice, "numbers_by_period_and", sources, holes)
        ]

    def sessions_by(self, order: str, limit: int = 50, *, ascending: bool = False) -> list[Session]:
        """Sessions by their name, their user or what their calls add up to; every call is read.

        Raises:
            QuestionError: there is no such order.
        """
        sources = self._sources()
        orders = {**ORDERS, "value": "session_id", "user_id": f"COALESCE({ONE_USER}, '')"}
        order_by = _order(order, orders, ascending)
        holes = {"calls": sources.calls, "user": ONE_USER, "order": order_by}
        return self._ask(Session, "sessions_ranked", sources, holes, limit=_bounded(limit))

    def failed(self, limit: int = 20) -> list[FailedCall]:
        """The latest calls that failed."""
        return self._latest(FailedCall, "failed_calls", limit)

    def runs(self, limit: int = 20) -> list[Run]:
        """The latest calls that asked a model, with what a list of runs shows of them."""
        return self._latest(Run, "run_details", limit)

    def calls(self, limit: int = 50, page: str | None = None) -> Page[RecentCall]:
        """Calls from the latest on.

        Args:
            limit: most rows of a page.
            page: the token of the page before; None for the first.

        Raises:
            QuestionError: the token is none that was given out.
        """
        return self._paged(RecentCall, "calls_page", limit, page, ("start_ms", "id"))

    def received(self, since_ms: int) -> Iterator[ReceivedCall]:
        """Calls that were stored from a moment on, whenever they began, in the order of storing."""
        sources = self._sources()
        holes = {"matching": sources.matching}
        at: dict[str, Any] = {"after_ms": since_ms, "after_id": "", "limit": MOST_ROWS}
        while rows := self._ask(ReceivedCall, "calls_received", sources, holes, **at):
            yield from rows
            at |= {"after_ms": rows[-1].received_ms, "after_id": rows[-1].id}

    def count(self) -> int:
        """How many calls the window has, those that only group others included."""
        sources = self._sources()
        return self._ask(_Count, "calls_count", sources, {"calls": sources.calls})[0].calls

    def every(self, *, content: bool = False, text: str | None = None) -> Iterator[EveryCall]:
        """Each call of the window in the order in which they began, as it was when this was asked.

        Rows are read as they are wanted, so it does not matter how many there are.

        Args:
            content: whether to read prompts and responses from the traces that hold them.
            text: only calls with this text in them, as `search` finds them.

        Raises:
            QuestionError: the text is empty or too long.
        """
        sources = self._sources()
        holes = {"calls": sources.calls, "span": SPAN if content or text else "NULL"}
        if text is None:
            whole = {**holes, "matches": "1 = 1"}
            return self._stream(EveryCall, "every_call", whole, sources.parameters)
        plain, written = patterns(text)
        parameters = {**sources.parameters, "plain": plain, "written": written}
        holes["matches"] = HAS_TEXT.format(span=SPAN)
        found = self._stream(EveryCall, "every_call", holes, parameters)
        return (call for call in found if has_text(call, text))

    def experiment(self, experiment_id: int) -> str | None:
        """The name of an experiment; None when it was removed."""
        return self._experiments.get(experiment_id)

    def ranked(
        self, by: str, limit: int = 50, page: str | None = None, *, ascending: bool = False
    ) -> Page[RecentCall]:
        """Calls by one of `RANKS`, the largest first unless `ascending`; what is unknown is least.

        Every call of the window is read, and none but the page's is kept.

        Raises:
            QuestionError: there is no such number, or the token is none that was given out.
        """
        if by not in RANKS:
            raise QuestionError(f"sort={by!r}: use one of {', '.join(RANKS)}")
        at, at_id = ranked_position(page, ascending)
        sources = self._sources()
        way, beyond = ("ASC", ">") if ascending else ("DESC", "<")
        holes = {"calls": sources.calls, "rank": RANKS[by], "way": way, "beyond": beyond}
        more = _bounded(limit) + 1
        rows = self._ask(RecentCall, "calls_ranked", sources, holes, at=at, at_id=at_id, limit=more)
        return ranked_page(rows, limit, by)

    def search(
        self, text: str, limit: int = 50, page: str | None = None, most: int = MOST_SEARCHED
    ) -> Searched:
        """Calls with this text in what was asked or answered, in a name or an error, newest first.

        Looks at so many calls at once, and says how far it came; its token goes on from there.

        Args:
            text: any case; found as it is written.
            limit: most rows of a page.
            page: the token of the page before; None for the first.
            most: how many calls to look at.

        Raises:
            QuestionError: the token is none that was given out.
        """
        before_ms, before_id = _position(page)
        sources = self._sources()
        holes = {"calls": sources.calls, "matches": HAS_TEXT.format(span="s.content")}
        at = {"before_ms": before_ms, "before_id": before_id, "most": most}
        last = self._ask(Position, "calls_position", sources, holes, **{**at, "most": most - 1})
        plain, written = patterns(text)
        found = self._ask(
            Found, "calls_to_search", sources, holes, **at, plain=plain, written=written
        )
        return searched(found, text, limit, last[0] if last else None)

    def lag(self) -> Lag:
        """How long after their end the calls of the window were stored."""
        sources = self._sources()
        return self._ask(Lag, "lag", sources, {"calls": sources.calls})[0]

    def sessions(self, limit: int = 50, page: str | None = None) -> Page[Session]:
        """Sessions from the one that was last active on, with the sums over their calls.

        A page is full of sessions that were active lately, so it is looked for in longer and longer
        stretches of time: a whole month is read only where it has no more of them.

        Raises:
            QuestionError: the token is none that was given out.
        """
        last = self.calls(limit=1).rows
        end = min(_position(page)[0], last[0].start_ms if last else 0) + 1
        stretch = SHORTEST_STRETCH_MS
        while True:
            since = max(end - stretch, self.window.start_ms)
            lately = self._sources(Window(since, end)).calls
            order = ("last_ms", "session_id")
            holes = {"lately": lately, "user": ONE_USER}
            found = self._paged(Session, "sessions_page", limit, page, order, **holes)
            if found.next is not None or since == self.window.start_ms:
                return found
            stretch *= LONGER

    def _hours(self, period: str) -> int:
        """How many hours a period has; 0 for a minute."""
        if period not in HOURS:
            raise QuestionError(f"period={period!r}: use {', '.join(HOURS)}")
        if period == "minute" and self.window.minutes > MOST_MINUTES:
            raise QuestionError("period='minute': ask for a day at most")
        return HOURS[period]

    def _sources(self, window: Window | None = None, by_minute: bool = False) -> Sources:
        wanted = self._filters.experiment
        ids = None
        if wanted is not None:
            ids = [key for key, name in self._experiments.items() if name == wanted]
        return Sources(window or self.window, self._filters, ids, by_minute)

    def _sums(self, sources: Sources) -> Sums:
        return self._ask(Sums, "numbers", sources, {"measured": sources.totals()})[0]

    def _paged(
        self,
        row: type[R],
        name: str,
        limit: int,
        page: str | None,
        order: tuple[str, str],
        **holes: str,
    ) -> Page[R]:
        """One page of rows in descending order of these two fields, which make its token."""
        before_ms, before_id = _position(page)
        more = _bounded(limit) + 1  # one beyond the page tells whether there is another
        sources = self._sources()
        at = {"limit": more, "before_ms": before_ms, "before_id": before_id}
        rows = self._ask(row, name, sources, {"calls": sources.calls, **holes}, **at)
        if len(rows) < more:
            return Page(rows, None)
        last = rows[limit - 1]
        return Page(rows[:limit], "-".join(str(getattr(last, field)) for field in order))

    def _latest(self, row: type[R], name: str, limit: int) -> list[R]:
        sources = self._sources()
        holes = {"calls": sources.calls}
        return self._ask(row, name, sources, holes, limit=_bounded(limit))

    def _ask(
        self, row: type[R], name: str, sources: Sources, holes: dict[str, str], **values: Any
    ) -> list[R]:
        return self._question(row, name, {"sums": SUMS, **holes}, sources.parameters | values)

    def _of_groups(self, dimension: str) -> tuple[str, Callable[[Any], str | None]]:
        column = _column(dimension)
        if column not in GROUPED:
            raise QuestionError(f"calls are not grouped by {dimension}: ask for it by itself")
        return column, self._namer(column)

    def _namer(self, column: str) -> Callable[[Any], str | None]:
        if column == "success":
            return lambda value: "success" if value else "failed"
        if column == "experiment_id":
            return lambda value: self._experiments.get(value, str(value))
        return lambda value: value


class _Bucket(msgspec.Struct):
    latency_bucket: int
    calls: int


class _Squares(msgspec.Struct):
    latency_squared: float
    confidence_squared: float


class _Count(msgspec.Struct):
    calls: int


class _Histogram(_Bucket):
    value: Any


class _NumberedHistogram(_Histogram):
    period: int


class _AnySlice(Sums, frozen=True):
    value: Any


class _NumberedPeriod(Sums, frozen=True):
    period: int


class _NumberedSlice(_AnySlice, frozen=True):
    period: int


def _column(dimension: str) -> str:
    if dimension.startswith("tag:"):
        return dimension
    if dimension not in DIMENSIONS:
        raise QuestionError(f"by={dimension!r}: use one of {', '.join(DIMENSIONS)}, or tag:<key>")
    return DIMENSIONS[dimension]


def _of_latencies(dimension: str) -> str:
    column = _column(dimension)
    if column not in OF_LATENCIES:
        raise QuestionError(f"there are no percentiles by {dimension}: use a filter instead")
    return column


def _length_ms(hours: int) -> int:
    return hours * MS_OF_AN_HOUR or MS_OF_A_MINUTE


def _value(column: str) -> str:
    return column if column in GROUPED else "value"


def _among(value: str, among: Sequence[str | None], parameters: dict[str, Any]) -> str:
    """A value where it is one of these, else `others`."""
    wanted = {f"among{place}": name for place, name in enumerate(among)}
    parameters |= {**wanted, "others": OTHERS}
    marks = ", ".join(f":{name}" for name in wanted) or "NULL"
    missing = f" OR {value} IS NULL" if None in among else ""
    return f"CASE WHEN {value} IN ({marks}){missing} THEN {value} ELSE :others END"


def _order(order: str, orders: Mapping[str, str], ascending: bool) -> str:
    if order not in orders:
        raise QuestionError(f"sort={order!r}: use one of {', '.join(orders)}")
    return f"{orders[order]} {'ASC' if ascending else 'DESC'}"


def _bounded(limit: int) -> int:
    if not 1 <= limit <= MOST_ROWS:
        raise QuestionError(f"limit={limit}: give 1 to {MOST_ROWS}")
    return limit


def _position(page: str | None) -> tuple[int, str]:
    """What the rows of a page come before, in descending order."""
    if page is None:
        return 2**53, ""
    found = _token.fullmatch(page)
    if found is None:
        raise QuestionError(f"page={page[:50]!r}: give the `next` of the page before")
    return int(found[1]), found[2]


def _as(kind: type[R], row: msgspec.Struct, **changed: Any) -> R:
    fields = msgspec.structs.asdict(row)
    return kind(
        **{name: fields[name] for name in kind.__struct_fields__ if name in fields} | changed
    )


def _added(one: PromptSlice, newer: PromptSlice) -> PromptSlice:
    sums = {
        name: getattr(one, name) + getattr(newer, name)
        for name in Sums.__struct_fields__
        if name not in ("first_ms", "last_ms")
    }
    first = min(one.first_ms or math.inf, newer.first_ms or math.inf)
    return msgspec.structs.replace(newer, **sums, first_ms=int(first))
