"""What each page asks the ledger; its template says how it looks."""

from collections.abc import Callable

from flowledger.dashboard.pages import (
    audit,
    calls,
    costs,
    errors,
    health,
    models,
    overview,
    prompts,
    sessions,
    users,
)
from flowledger.dashboard.pages.shown import Context, Shown

__all__ = ["TEMPLATES", "Shown"]

# What a page shows, by its path; `call` is a call's own page.
TEMPLATES: dict[str, Callable[[Shown, str], Context]] = {
    "": overview.overview,
    "calls": calls.calls,
    "call": calls.call,
    "sessions": sessions.sessions,
    "users": users.users,
    "models": models.models,
    "prompts": prompts.prompts,
    "errors": errors.errors,
    "costs": costs.costs,
    "audit": audit.audit,
    "health": health.health,
}
