"""Whether the evidence holds: what calls lack, what never came, and the chain that proves it."""

from typing import Any

from flowledger.audit.evidence import Evidence, check
from flowledger.audit.policy import policy_of
from flowledger.charts.numbers import moment
from flowledger.dashboard.pages.shown import MOST_READ, Context, Shown
from flowledger.questions import Filters

__all__ = ["audit"]

MOST_NAMED = 5


def audit(shown: Shown, rest: str) -> Context:
    """What the evidence of the window lacks by the policy, and the latest of the chain."""
    window = shown.view.window
    everything = shown.ledger.over(window, Filters(readable=shown.may)).sums()
    found: dict[str, Any] = {
        "title": "Audit",
        "sums": everything,
        "most_checked": MOST_READ,
        "first_day": moment(window.start_ms)[:10],
        "evidence": _evidence(shown) if everything.calls <= MOST_READ else None,
        "most_named": MOST_NAMED,
        "chain": None,
        "changes": [],
    }
    if shown.may is None:
        found |= {"chain": shown.ledger.chain(), "changes": shown.ledger.chain_changes()}
    return "audit", found


def _evidence(shown: Shown) -> Evidence:
    window = shown.view.window
    return check(
        shown.settings,
        policy_of(shown.settings),
        first_ms=window.start_ms,
        end_ms=window.end_ms,
        experiments=shown.may,
    )
