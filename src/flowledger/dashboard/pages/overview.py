"""The window at a glance."""

from collections import Counter
from typing import Any

import msgspec

from flowledger import charts
from flowledger.charts import numbers
from flowledger.dashboard.pages.shown import MOST_ROWS, PART_ORDERS, Change, Context, Shown
from flowledger.questions import Groups, Period, Speeds, Sums
from flowledger.questions.groups import ranked

__all__ = ["overview"]

MOST_MODELS = 10_000
MOST_MISSED = 0.1  # of the window before, when the ledger began in it
ORDERS = (*PART_ORDERS, "provider", "p95")


class Tile(msgspec.Struct, frozen=True):
    """A number, how it changed, and the way it went."""

    name: str
    text: str
    change: Change
    path: str
    values: list[float]
    note: str = ""


def overview(shown: Shown, rest: str) -> Context:
    """All calls in numbers, over time, by model and by feature."""
    view = shown.view
    over = shown.over()
    groups, speeds = over.groups(), over.speeds("model", view.span.period)
    periods = over.trend(view.span.period)
    sums, by_model = groups.sums(), speeds.by_part()
    providers = _providers(groups)
    order, ascending = view.order("-cost_usd", ORDERS)
    also = {
        "provider": lambda row: providers.get(row.value, ""),
        "p95": lambda row: by_model[row.value].p95 or 0 if row.value in by_model else 0,
    }
    models = groups.by("model", MOST_MODELS)
    return "overview", {
        "title": "Overview",
        "empty": not sums.calls,
        "sums": sums,
        "tiles": _tiles(shown, sums, speeds, periods),
        "trend": charts.spend_and_calls(periods, view.window, view.span.period),
        "by_model": charts.bars(models, "model", whole=sums),
        "by_feature": charts.bars(groups.by("feature", order="cost_usd"), "feature", whole=sums),
        "errors": charts.bars(
            [row for row in groups.by("error_type", order="failed") if row.failed],
            "error type",
            "failed",
        ),
        "models": ranked(models, order, ascending=ascending, also=also)[:MOST_ROWS],
        "speeds": by_model,
        "providers": providers,
    }


def _tiles(shown: Shown, sums: Sums, speeds: Speeds, periods: list[Period]) -> list[Tile]:
    speed, by_period = speeds.whole(), speeds.by_period()
    earlier = shown.over(window=shown.view.window.before())
    before, past = earlier.sums(), earlier.percentiles()
    comparable = _reaches_back(shown)
    unknown = f"{numbers.count(sums.unpriced)} calls without a known price" if sums.unpriced else ""

    def change(now: float | None, then: float | None, *, more_is_better: bool = False) -> Change:
        return Change.of(now, then if comparable else None, more_is_better=more_is_better)

    def way(name: str) -> list[Any]:
        return [getattr(row, name) for row in periods]

    return [
        Tile(
            "Calls",
            numbers.count(sums.calls),
            change(sums.calls, before.calls, more_is_better=True),
            "calls",
            way("calls"),
        ),
        Tile(
            "Spend",
            numbers.amount(sums.spend_usd),
            change(sums.cost_usd, before.cost_usd),
            "costs",
            way("cost_usd"),
            unknown,
        ),
        Tile(
            "Error rate",
            numbers.percent(sums.error_rate),
            change(sums.error_rate, before.error_rate),
            "errors",
            way("error_rate"),
        ),
        Tile(
            "p95 latency",
            numbers.milliseconds(speed.p95),
            change(speed.p95, past.p95),
            "models",
            [by_period[row.start_ms].p95 or 0 for row in periods if row.start_ms in by_period],
        ),
    ]


def _reaches_back(shown: Shown) -> bool:
    """Whether the ledger is old enough for the window before to be compared with."""
    before, first_ms = shown.view.window.before(), shown.ledger.first_ms()
    missed = (first_ms or before.end_ms) - before.start_ms
    return missed <= MOST_MISSED * (before.end_ms - before.start_ms)


def _providers(groups: Groups) -> dict[str | None, str]:
    """The provider of each model: of several, the one that is called most."""
    calls = Counter[tuple[str | None, str]]()
    for row in groups.rows:
        if row.provider is not None:
            calls[row.model, row.provider] += row.calls
    return {model: provider for (model, provider), _ in reversed(calls.most_common())}
