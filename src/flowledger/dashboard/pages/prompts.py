"""Versions of prompts: over time, and side by side."""

from typing import Any

from flowledger import charts
from flowledger.dashboard.pages.calls import messages_of
from flowledger.dashboard.pages.shown import Context, Shown
from flowledger.questions import PromptSlice, Window

__all__ = ["prompts"]

SIDE_BY_SIDE = 2
ORDERS = (
    "value",
    "calls",
    "error_rate",
    "mean_latency_ms",
    "cost_per_call_usd",
    "mean_confidence",
    "last_ms",
)


def prompts(shown: Shown, rest: str) -> Context:
    """Every version of the window; those to compare, or else the last used, side by side."""
    over = shown.over()
    found = over.by_prompt()
    by_name = {row.value or "": row for row in found}  # the last used first
    order, ascending = shown.view.order("-last_ms", ORDERS)
    found.sort(key=lambda row: (_number(row, order), row.value or ""), reverse=not ascending)
    names = [name for name in shown.view.compared if name in by_name]
    names = names or list(by_name)[:SIDE_BY_SIDE]
    return "prompts", {
        "title": "Prompts",
        "rows": found,
        "names": names,
        "compared": [_side(shown, by_name[name]) for name in names],
        "unknown": [name for name in shown.view.compared if name not in by_name],
        "trend": charts.over_time(
            [
                row
                for row in over.trend_by("prompt_version", shown.view.span.period)
                if row.value is not None
            ],
            "prompt version",
            shown.view.window,
            shown.view.span.period,
            "calls",
        ),
    }


def _number(row: PromptSlice, order: str) -> float:
    """What versions are sorted by; their names come after it."""
    return 0.0 if order == "value" else float(getattr(row, order) or 0)


def _side(shown: Shown, row: PromptSlice) -> dict[str, Any]:
    """A version with the latest call that used it, and what that told the model to be."""
    last_ms = row.last_ms or 0
    last = Window(last_ms, last_ms + 1)
    latest = shown.over(window=last, prompt_version=row.value).calls(1).rows
    call = shown.ledger.call(latest[0].id, shown.may) if latest else None
    spoken = messages_of(call.content.prompt) if call else []
    return {"row": row, "call": call, "text": spoken[0] if spoken else None}
