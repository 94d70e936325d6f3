"""The window at a glance."""

from typing import Any

import msgspec

from flowledger import charts
from flowledger.charts import numbers
from flowledger.dashboard.pages.shown import Change, Context, Shown, parts
from flowledger.questions import Percentiles, Period, Sums

__all__ = ["overview"]


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
    sums = over.sums()
    periods = over.trend(view.span.period)
    models, _ = parts(shown, "model", "-cost_usd")
    return "overview", {
        "title": "Overview",
        "empty": not sums.calls,
        "sums": sums,
        "tiles": _tiles(shown, sums, over.sums_before(), over.percentiles(), periods),
        "trend": charts.spend_and_calls(periods, view.window, view.span.period),
        "by_model": charts.bars(over.by("model", order="cost_usd"), "model", whole=sums),
        "by_feature": charts.bars(over.by("feature", order="cost_usd"), "feature", whole=sums),
        "errors": charts.bars(
            [row for row in over.by("error_type", order="failed") if row.failed],
            "error type",
            "failed",
        ),
        "models": models,
        "speeds": over.percentiles_by("model"),
        "providers": _providers(shown),
    }


def _tiles(
    shown: Shown, sums: Sums, before: Sums, speed: Percentiles, periods: list[Period]
) -> list[Tile]:
    past = shown.over(window=shown.view.window.before()).percentiles()
    unknown = f"{numbers.count(sums.unpriced)} calls without a known price" if sums.unpriced else ""

    def change(now: float | None, then: float | None, *, more_is_better: bool = False) -> Change:
        return Change.of(now, then, more_is_better=more_is_better)

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
            numbers.money(sums.spend_usd),
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
            way("mean_latency_ms"),
        ),
    ]


def _providers(shown: Shown) -> dict[str | None, str]:
    """The provider of each model: of several, the one that is called most."""
    found: dict[str | None, str] = {}
    for provider in reversed(shown.over().by("provider")):
        if provider.value is None or "provider" in shown.view.filters:
            continue
        for model in shown.over(provider=provider.value).by("model", 1000):
            found[model.value] = provider.value
    return found
