"""Calls in a list that goes on by itself, and everything about one of them."""

from typing import Any

from flowledger.audit.single import CallProof, prove_call
from flowledger.dashboard.pages.shown import Context, Shown, check_few
from flowledger.dashboard.pages.timeline import bars_of
from flowledger.errors import NotFound, QuestionError, StoreMisconfigured
from flowledger.questions import Filters, RecentCall, StoredCall
from flowledger.questions.over import RANKS

__all__ = ["call", "calls"]

ROWS = 50
CHOICES = 50
PER_MILLION = 1_000_000


def calls(shown: Shown, rest: str) -> Context:
    """The calls of the window, from the latest on unless they are sorted or searched."""
    view = shown.view
    order, ascending = view.order("-start_ms", RANKS)
    rows, after, searched_to = _listed(shown, order, ascending)
    context: dict[str, Any] = {
        "title": "Calls",
        "rows": rows,
        "next": after,
        "searched_to": searched_to,
        "live": order == "start_ms" and not ascending and not view.q and not view.page,
    }
    if view.given.get("part") == "rows":
        return "rows", context
    everything = shown.ledger.over(view.window, Filters(readable=shown.may)).groups()
    return "calls", {
        **context,
        "sums": shown.over().sums() if view.filters else everything.sums(),
        "choices": {
            name: [row.value for row in everything.by(name, CHOICES) if row.value is not None]
            for name in ("model", "feature")
        },
    }


def _listed(
    shown: Shown, order: str, ascending: bool
) -> tuple[list[RecentCall], str | None, int | None]:
    """The rows of a page, the token of the next one, and how far back a search looked."""
    view, over = shown.view, shown.over()
    if view.q:
        if order != "start_ms" or ascending:
            raise QuestionError("a search lists the latest first: take sort= away")
        found = over.search(view.q, ROWS, view.page)
        return found.rows, found.next, found.back_to_ms
    if order == "start_ms" and not ascending:
        page = over.calls(ROWS, view.page)
        return page.rows, page.next, None
    if order != "start_ms":
        check_few(over, "sort them by anything but their time")
    ranked = over.ranked(order, ROWS, view.page, ascending=ascending)
    return ranked.rows, ranked.next, None


def call(shown: Shown, rest: str) -> Context:
    """One call: what was asked and answered, by whom and why, how long and how much it took."""
    found = shown.ledger.call(rest, shown.may)
    steps = shown.ledger.steps(found, shown.may)
    return "call", {
        "title": found.operation or "Call",
        "call": found,
        "messages": messages_of(found.content.prompt),
        "bars": bars_of(steps),
        "input_price": _per_million(found.input_cost_usd, found.input_tokens),
        "output_price": _per_million(found.output_cost_usd, found.output_tokens),
        "proof": _proof(shown, found),
        "has_run": shown.ledger.has_run(found.id),
    }


def _proof(shown: Shown, call: StoredCall) -> CallProof | None:
    try:
        return prove_call(shown.settings.tracking_uri, call.id, call.received_ms)
    except (NotFound, StoreMisconfigured):
        return None


def messages_of(prompt: Any) -> list[tuple[str, Any]]:
    """A prompt as turns: who speaks, and what they say."""
    if prompt is None:
        return []
    if isinstance(prompt, dict) and isinstance(prompt.get("messages"), list):
        system = [("system", prompt["system"])] if prompt.get("system") else []
        return [*system, *messages_of(prompt["messages"])]
    if isinstance(prompt, list) and prompt and all(_is_message(one) for one in prompt):
        return [(str(one["role"]), _said(one)) for one in prompt]
    return [("prompt", prompt)]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value


def _said(message: dict[str, Any]) -> Any:
    """What a message says: its text where it is text, all of it where it is more."""
    content = message.get("content")
    if isinstance(content, list) and all(_text_of(part) is not None for part in content):
        content = "\n".join(_text_of(part) or "" for part in content)
    more = {name: value for name, value in message.items() if name not in ("role", "content")}
    if not more:
        return content
    return {"content": content, **more} if content else more


def _text_of(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else None


def _per_million(cost_usd: float | None, tokens: int | None) -> float | None:
    """What a million tokens cost at the price of these."""
    return cost_usd * PER_MILLION / tokens if cost_usd is not None and tokens else None
