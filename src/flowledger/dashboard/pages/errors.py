"""What failed, when, and where."""

from flowledger import charts
from flowledger.dashboard.pages.shown import MOST_ROWS, Context, Shown

__all__ = ["errors"]

LATEST = 15
ORDERS = ("value", "failed", "last_ms")


def errors(shown: Shown, rest: str) -> Context:
    """Failed calls by type and over time, and the latest with their stacks."""
    over = shown.over(status="failed")
    order, ascending = shown.view.order("-failed", ORDERS)
    latest = over.failed(LATEST)
    rows = over.by("error_type", MOST_ROWS + 1, order, ascending=ascending)
    return "errors", {
        "title": "Errors",
        "sums": shown.over().sums(),
        "rows": rows[:MOST_ROWS],
        "more": len(rows) > MOST_ROWS,
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
