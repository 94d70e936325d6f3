"""Whether the record itself is whole: how late it is, what waits, what was lost or refused."""

from typing import Any

from flowledger.dashboard.pages.shown import Context, Shown
from flowledger.questions import Window
from flowledger.shipping.waiting import look_at_journals

__all__ = ["health"]

MS_OF_AN_HOUR = 3_600_000


def health(shown: Shown, rest: str) -> Context:
    """The ledger's size and lag, and for those who may see everything, this host's journals."""
    now_ms = shown.view.now_ms
    context: dict[str, Any] = {
        "title": "Health",
        "lag": shown.over(window=Window(now_ms - MS_OF_AN_HOUR, now_ms)).lag(),
        "day": shown.over(window=Window(now_ms - 24 * MS_OF_AN_HOUR, now_ms)).sums(),
        "all": None,
    }
    if shown.may is None:
        context["all"] = {
            "size": shown.ledger.size(),
            "losses": shown.ledger.losses(),
            "journals": look_at_journals(shown.settings),
            "revision": shown.ledger.revision(),
        }
    return "health", context
