"""Whether the record itself is whole: how late it is, what waits, what was lost or refused."""

from typing import Any

from flowledger.dashboard.pages.shown import Context, Shown
from flowledger.questions import Filters, Window
from flowledger.shipping.waiting import look_at_journals

__all__ = ["health"]

MS_OF_AN_HOUR = 3_600_000


def health(shown: Shown, rest: str) -> Context:
    """The ledger's size and lag, and for those who may see everything, this host's journals."""
    now_ms = shown.view.now_ms
    everything = Filters(readable=shown.may)
    hour, day = (Window(now_ms - hours * MS_OF_AN_HOUR, now_ms) for hours in (1, 24))
    context: dict[str, Any] = {
        "title": "Health",
        "lag": shown.ledger.over(hour, everything).lag(),
        "day": shown.ledger.over(day, everything).sums(),
        "all": None,
    }
    if shown.may is None:
        losses, journals = shown.ledger.losses(), look_at_journals(shown.settings)
        context["all"] = {
            "size": shown.ledger.size(),
            "losses": losses,
            "journals": journals,
            "lost": losses.dropped + sum(journal.rejected for journal in journals),
            "revision": shown.ledger.revision(),
        }
    return "health", context
