"""What failed, when, and where."""

from flowledger import charts
from flowledger.dashboard.pages.shown import Context, Shown

__all__ = ["errors"]

LATEST = 15
ORDERS = ("value", "failed", "last_ms")


def errors(shown: Shown, rest: str) -> Context:
    """Failed calls by type and over time, and the latest with their stacks."""
    over = shown.over(status="failed")
    order, ascending = shown.view.order("-failed", ORDERS)
    latest = over.failed(LATEST)
    return "errors", {
        "title": "Errors",
        "sums": shown.over().sums(),
        "rows": over.by("error_type", 200, order, ascending=ascending),
        "trend": charts.error_types(
            over.trend_by("error_type", shown.view.span.period),
            shown.view.window,
            shown.view.span.period,
        ),
        "by_model": charts.bars(
            [row for row in over.by("model", order="failed") if row.failed], "model", "failed"
        ),
        "latest": [(row, shown.ledger.call(row.id, shown.may).content.stack) for row in latest],
    }
