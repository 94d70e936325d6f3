"""Sessions, and the turns of one as a conversation."""

from typing import Any

from flowledger.dashboard.pages.calls import messages_of
from flowledger.dashboard.pages.shown import PART_ORDERS, Context, Shown, check_few
from flowledger.errors import NotFound
from flowledger.questions import ALWAYS, RecentCall, StoredCall

__all__ = ["sessions"]

ROWS = 50
TURNS = 20
ORDERS = (*PART_ORDERS, "user_id")


def sessions(shown: Shown, rest: str) -> Context:
    """The sessions of the window, or the turns of the one that the filters name."""
    if "session_id" in shown.view.filters:
        return _one(shown)
    order, ascending = shown.view.order("-last_ms", ORDERS)
    context: dict[str, Any] = {"title": "Sessions", "next": None, "most": ROWS}
    if (order, ascending) == ("last_ms", False):
        page = shown.over().sessions(ROWS, shown.view.page)
        context |= {"rows": page.rows, "next": page.next}
    else:
        over = shown.over()
        check_few(over, "add up sessions in this order")
        context["rows"] = over.sessions_by(order, ROWS, ascending=ascending)
    return "sessions", context


def _one(shown: Shown) -> Context:
    session = shown.view.filters["session_id"]
    over = shown.over(window=ALWAYS)
    sums = over.sums()
    if not sums.calls:
        raise NotFound(
            f"No call has the session {session!r}: the list of sessions has those that have."
        )
    page = over.ranked("start_ms", TURNS, shown.view.page, ascending=True)
    return "session", {
        "title": f"Session {session}",
        "sums": sums,
        "turns": [turn for row in page.rows if (turn := _turn(shown, row))],
        "next": page.next,
    }


def _turn(shown: Shown, row: RecentCall) -> dict[str, Any] | None:
    """A call as a turn: what was asked last, and the answer; None if it groups others."""
    call: StoredCall = shown.ledger.call(row.id, shown.may)
    if call.inner_calls:
        return None
    said = [message for message in messages_of(call.content.prompt) if message[0] != "system"]
    return {"row": row, "asked": said[-1:], "call": call}
