"""Who uses how much."""

from flowledger import charts
from flowledger.dashboard.pages.shown import Context, Shown, parts

__all__ = ["users"]


def users(shown: Shown, rest: str) -> Context:
    """Everybody who had calls in the window."""
    rows, more = parts(shown, "user_id", "-cost_usd")
    over = shown.over()
    spend = rows if not more else over.by("user_id", order="cost_usd")
    calls = rows if not more else over.by("user_id")
    return "users", {
        "title": "Users",
        "rows": rows,
        "more": more,
        "spend": charts.bars(spend, "user", whole=over.sums()),
        "calls": charts.bars(calls, "user", "calls"),
    }
