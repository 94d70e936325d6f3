"""Who uses how much."""

from flowledger import charts
from flowledger.dashboard.pages.shown import MOST_ROWS, Context, Shown, parts

__all__ = ["users"]


def users(shown: Shown, rest: str) -> Context:
    """Everybody who had calls in the window."""
    rows, more = parts(shown, "user_id", "-cost_usd")
    over = shown.over()
    sums = over.sums()
    spend = rows if not more else over.by("user_id", MOST_ROWS, "cost_usd")
    calls = rows if not more else over.by("user_id", MOST_ROWS)
    return "users", {
        "title": "Users",
        "rows": rows,
        "more": more,
        "spend": charts.bars(spend, "user", whole=sums),
        "calls": charts.bars(calls, "user", "calls", sums),
    }
