"""What a command asks about, as options that many share: a span of time, and which calls."""

import functools
import math
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from flowledger.cli.text import iso, moment

if TYPE_CHECKING:
    from flowledger.questions import Ledger, Over, Window

__all__ = ["Scope", "filtered", "windowed"]

Function = Callable[..., Any]
MS_OF_A_DAY = 86_400_000
LONGEST_DAYS = 3660
# The option, the field of `Filters` it sets, and whose calls it leaves.
FILTERS = (
    ("--user", "user_id", "of this user"),
    ("--session", "session_id", "of this session"),
    ("--feature", "feature", "of this feature"),
    ("--model", "model", "of this model"),
    ("--provider", "provider", "of this provider"),
    ("--persona", "persona_id", "of this persona"),
    ("--prompt-version", "prompt_version", "with this version of a prompt"),
    ("--experiment", "experiment", "in this MLflow experiment"),
    ("--tag", "tag", "with this tag of your own, as KEY=VALUE"),
)


class Scope(NamedTuple):
    """Which calls a command is about: those from `start_ms` up to but without `end_ms`."""

    start_ms: int
    end_ms: int
    filters: dict[str, Any]

    @property
    def window(self) -> "Window":
        """The span of time."""
        from flowledger.questions import Window

        return Window(self.start_ms, self.end_ms)

    @property
    def days(self) -> float:
        """How long it is."""
        return (self.end_ms - self.start_ms) / MS_OF_A_DAY

    def over(self, ledger: "Ledger") -> "Over":
        """The questions to these calls.

        Raises:
            NotFound: no call has the feature, or there is no experiment, that the filters name.
            QuestionError: a filter cannot be asked for like that.
        """
        from flowledger.questions import Filters

        return ledger.over(self.window, Filters(**self.filters))

    def only(self, **more: str | None) -> "Scope":
        """The same with more filters; None is none."""
        given = {name: value for name, value in more.items() if value is not None}
        return self._replace(filters={**self.filters, **given})

    def bounds(self) -> dict[str, str]:
        """Start and end, as JSON tells them: ISO 8601 in UTC."""
        return {"from": iso(self.start_ms), "to": iso(self.end_ms)}

    def words(self) -> str:
        """The span and the filters, in words."""
        start, end = (moment(ms)[: len("2026-11-21 14:30")] for ms in (self.start_ms, self.end_ms))
        span = f"{start} to {end} UTC" if self.start_ms else f"until {end} UTC"
        named = (f"{name.removesuffix('_id')} {value}" for name, value in self.filters.items())
        return ", ".join([span, *named])


def filtered(function: Function) -> Function:
    """Give a command the options of filters, and their values as `filters`."""

    @functools.wraps(function)
    def with_filters(failed: bool, **options: Any) -> Any:
        given = {field: options.pop(field) for _, field, _ in FILTERS}
        filters = {field: value for field, value in given.items() if value is not None}
        if failed:
            filters["status"] = "failed"
        return function(filters=filters, **options)

    with_filters = click.option("--failed", is_flag=True, help="Only calls that failed.")(
        with_filters
    )
    for option, field, whose in reversed(FILTERS):
        with_filters = click.option(option, field, help=f"Only calls {whose}.")(with_filters)
    return with_filters


def windowed(days: float | None) -> Callable[[Function], Function]:
    """Give a command the options of a window and of filters, and what they say as `scope`.

    Args:
        days: how many days up to now without these options; None is everything stored.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def with_window(
            filters: dict[str, Any],
            days: float | None,
            start: datetime | None,
            end: datetime | None,
            **options: Any,
        ) -> Any:
            start_ms, end_ms = _bounds(days, start, end, default)
            return function(scope=Scope(start_ms, end_ms, filters), **options)

        default = days
        said = "everything stored" if default is None else f"{default:g}"
        for option in (
            click.option("--to", "end", type=_Moment(ends=True), help="Up to this day or time."),
            click.option("--from", "start", type=_Moment(), help="From this day or time on."),
            click.option(
                "--days",
                type=click.FloatRange(0, LONGEST_DAYS, min_open=True),
                help=f"So many days up to now, or up to --to.  [default: {said}]",
            ),
        ):
            with_window = option(with_window)
        return filtered(with_window)

    return decorate


class _Moment(click.ParamType[datetime]):
    """A day or a time as ISO 8601 writes it, UTC where it does not say."""

    name = "date"

    def __init__(self, ends: bool = False) -> None:
        self._ends = ends

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        text = str(value)
        try:
            found = datetime.fromisoformat(text)
            if self._ends and _is_a_day(text):
                found += timedelta(days=1)  # a day that something goes up to belongs to it
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is no date: write 2026-11-21 or 2026-11-21T14:30", param, ctx)
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _is_a_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _bounds(
    days: float | None, start: datetime | None, end: datetime | None, default: float | None
) -> tuple[int, int]:
    """Start and end in Unix milliseconds."""
    if days is not None and math.isnan(days):
        raise click.BadParameter("give a number of days", param_hint="--days")
    if start is not None and days is not None:
        raise click.UsageError("--days counts back from now or from --to: leave it or --from out")
    end_ms = time.time_ns() // 1_000_000 + 1 if end is None else _unix_ms(end)
    length = default if days is None else days
    if start is not None:
        start_ms = _unix_ms(start)
    else:
        start_ms = 0 if length is None else max(0, end_ms - round(length * MS_OF_A_DAY))
    if start_ms >= end_ms:
        raise click.UsageError("the window ends before it begins: give an earlier --from")
    return start_ms, end_ms


def _unix_ms(moment: datetime) -> int:
    """The moment; nothing was recorded before 1970."""
    return max(0, round(moment.timestamp() * 1000))
