"""What a report says, before it is written in any form: numbers, tables and charts, in order."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flowledger import charts
from flowledger.charts import Chart, numbers
from flowledger.cli.scope import Scope
from flowledger.questions import Over, Slice
from flowledger.server.analytics.answers import Overview, Report
from flowledger.server.analytics.overviews import report as asked

__all__ = ["Document", "Section", "Table", "Tile", "compose"]

HOURLY_DAYS = 2
MOST_LATENCIES = 5
MOST_ROWS = 20
NOTES = (
    "Calls are those that asked a model; a function around them is not counted besides.",
    "Money is US dollars by list prices on the day of each call. A price nobody knows is not 0: it"
    " is left out, and said.",
    "Percentiles of latency are within 2 %. Times are UTC. Changes are against the window of the"
    " same length before.",
)


class Tile(NamedTuple):
    """One number that matters, and what is said of it."""

    name: str
    value: str
    note: str


class Table(NamedTuple):
    """Texts under their titles; columns from `numeric` on hold numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: int = 1


class Section(NamedTuple):
    """A part of the report; a table says in numbers what a chart shows, or more."""

    title: str
    chart: Chart | None = None
    table: Table | None = None


class Document(NamedTuple):
    """A report over one window."""

    title: str
    about: str
    generated: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    notes: Sequence[str]
    numbers: Report


def compose(over: Over, scope: Scope) -> Document:
    """The report of a window."""
    found = asked(over, math.ceil(scope.days))
    overview = found.overview
    return Document(
        title="LLM calls",
        about=scope.words(),
        generated=found.generated_at,
        tiles=list(_tiles(overview)),
        sections=[section for section in _sections(over, scope, found) if section is not None],
        notes=NOTES,
        numbers=found,
    )


def _tiles(overview: Overview) -> Iterator[Tile]:
    change = overview.change
    yield Tile("Calls", numbers.count(overview.total_runs), _change(change.total_runs))
    known = overview.total_cost_usd or not overview.unpriced_runs
    spend = numbers.money(overview.total_cost_usd if known else None)
    unpriced = f"{numbers.count(overview.unpriced_runs)} calls of unknown price"
    yield Tile(
        "Spend", spend, unpriced if overview.unpriced_runs else _change(change.total_cost_usd)
    )
    rate = overview.failed_runs / overview.total_runs * 100 if overview.total_runs else 0
    failed = f"{numbers.count(overview.failed_runs)} failed"
    yield Tile("Error rate", numbers.percent(rate), failed)
    yield Tile(
        "p95 latency",
        numbers.milliseconds(overview.p95_response_time_ms),
        f"half within {numbers.milliseconds(overview.p50_response_time_ms)}",
    )
    yield Tile("Tokens", numbers.short_count(overview.total_tokens), _change(change.total_tokens))


def _change(per_cent: float | None) -> str:
    return "nothing before" if per_cent is None else f"{per_cent:+,.1f}% on before"


def _sections(over: Over, scope: Scope, found: Report) -> Iterator[Section | None]:
    if not found.overview.total_runs:
        yield Section("There are no calls in this window")
        return
    period = "hour" if scope.days <= HOURLY_DAYS else "day"
    sums = over.sums()
    yield Section("Over time", charts.spend_and_calls(over.trend(period), over.window, period))
    yield Section("Models", charts.bars(over.by("model"), "model", whole=sums), _models(found))
    features = over.by("feature")
    yield Section(
        "Features", charts.bars(features, "feature", whole=sums), _parts("Feature", features)
    )
    users = over.by("user_id")
    named = any(row.value is not None for row in users)
    yield Section("Users", None, _parts("User", users)) if named else None
    histograms = over.histograms("model")
    most = sorted(histograms, key=lambda name: -sum(n for _, n in histograms[name]))
    shown = {name: histograms[name] for name in most[:MOST_LATENCIES]}
    yield Section("Latency", charts.latencies(shown))
    if found.errors.total_errors:
        rows = over.trend_by("error_type", period)
        failed = [row for row in rows if row.failed]
        yield Section("Errors", charts.error_types(failed, over.window, period), _types(found))
        yield Section("Latest failures", None, _failures(found))
    yield (
        Section("Prompts", None, _prompts(found)) if found.prompt_analysis.prompt_analysis else None
    )
    yield Section("Days", None, _days(found))


def _first(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of the first rows, which ends with how many more there are."""
    more = len(rows) - MOST_ROWS
    last = [(f"and {more:,} more", *[""] * (len(head) - 1))] if more > 0 else []
    return Table(head, [*rows[:MOST_ROWS], *last])


def _models(found: Report) -> Table:
    return _first(
        ("Model", "Calls", "Success", "Tokens", "Cost", "Per call", "p50", "p95"),
        [
            (
                row.model_name,
                numbers.count(row.run_count),
                numbers.percent(row.success_rate),
                numbers.count(row.total_tokens),
                _cost(row.total_cost_usd, row.unpriced_runs),
                _cost(row.cost_per_call_usd, row.unpriced_runs),
                numbers.milliseconds(row.p50_response_time_ms),
                numbers.milliseconds(row.p95_response_time_ms),
            )
            for row in found.model_comparison.model_comparison
        ],
    )


def _parts(name: str, rows: Sequence[Slice]) -> Table:
    return _first(
        (name, "Calls", "Failed", "Tokens", "Cost", "Mean latency"),
        [
            (
                "(none)" if row.value is None else row.value,
                numbers.count(row.calls),
                numbers.count(row.failed),
                numbers.count(row.total_tokens),
                numbers.money(row.spend_usd),
                numbers.milliseconds(row.mean_latency_ms),
            )
            for row in rows
        ],
    )


def _types(found: Report) -> Table:
    total = found.errors.total_errors
    return _first(
        ("Error", "Calls", "Share"),
        [
            (name, numbers.count(count), numbers.percent(100 * count / total))
            for name, count in found.errors.error_types.items()
        ],
    )


def _failures(found: Report) -> Table:
    return Table(
        ("When", "Error", "Feature", "Model", "User", "Call"),
        [
            (
                row.timestamp[: len("2026-11-21T14:30")].replace("T", " "),
                row.error_type or "unknown",
                row.feature or "-",
                row.model or "-",
                row.user_id or "-",
                row.run_id,
            )
            for row in found.errors.recent_errors
        ],
        numeric=6,
    )


def _prompts(found: Report) -> Table:
    return _first(
        ("Prompt version", "Calls", "Success", "Cost", "Mean latency", "Last used"),
        [
            (
                row.prompt_version,
                numbers.count(row.run_count),
                numbers.percent(row.success_rate),
                numbers.money(row.total_cost_usd),
                numbers.milliseconds(row.avg_response_time_ms),
                row.last_used[:10],
            )
            for row in found.prompt_analysis.prompt_analysis
        ],
    )


def _days(found: Report) -> Table:
    return Table(
        ("Day", "Calls", "Error rate", "Tokens", "Cost", "Mean latency"),
        [
            (
                row.date,
                numbers.count(row.request_count),
                numbers.percent(row.error_rate),
                numbers.count(row.total_tokens),
                numbers.money(row.total_cost_usd),
                numbers.milliseconds(row.avg_response_time_ms),
            )
            for row in found.trends.trends
        ],
    )


def _cost(usd: float, unpriced: int) -> str:
    return numbers.money(usd if usd or not unpriced else None)
