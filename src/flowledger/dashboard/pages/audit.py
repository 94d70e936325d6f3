"""Whether the evidence holds: what calls lack, what never came, and the chain that proves it."""

from typing import Any

from flowledger.audit.evidence import check
from flowledger.audit.policy import policy_of
from flowledger.dashboard.pages.shown import Context, Shown, check_few
from flowledger.questions import Filters

__all__ = ["audit"]

MOST_NAMED = 5


def audit(shown: Shown, rest: str) -> Context:
    """What the evidence of the window lacks by the policy, and the latest of the chain."""
    window = shown.view.window
    check_few(shown.ledger.over(window, Filters(readable=shown.may)), "audit them")
    evidence = check(
        shown.settings,
        policy_of(shown.settings),
        first_ms=window.start_ms,
        end_ms=window.end_ms,
        experiments=shown.may,
    )
    found: dict[str, Any] = {
        "title": "Audit",
        "evidence": evidence,
        "most_named": MOST_NAMED,
        "chain": None,
        "changes": [],
    }
    if shown.may is None:
        found |= {"chain": shown.ledger.chain(), "changes": shown.ledger.chain_changes()}
    return "audit", found
