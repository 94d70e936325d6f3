"""Who uses how much."""

from flowledger import charts
from flowledger.dashboard.pages.shown import Context, Shown, parts

__all__ = ["users"]


def users(shown: Shown, rest: str) -> Context:
    """Everybody who had calls in the window."""
    rows, more = parts(shown, "user_id", "-cost_usd")
    top = shown.over().by("user_id", order="cost_usd")
    return "users", {
        "title": "Users",
        "rows": rows,
        "more": more,
        "spend": charts.bars(top, "user", whole=shown.over().sums()),
        "calls": charts.bars(shown.over().by("user_id"), "user", "calls"),
    }
