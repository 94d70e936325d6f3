"""Calls by what is in them or by how large they are: text, cost, latency, tokens."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from flowledger.errors import QuestionError
from flowledger.questions import content
from flowledger.questions.rows import Content, EveryCall, Found, Page, RecentCall

__all__ = [
    "HAS_TEXT",
    "MOST_SEARCHED",
    "RANKS",
    "Position",
    "Searched",
    "has_text",
    "patterns",
    "ranked_page",
    "ranked_position",
    "searched",
]

MOST_SEARCHED = 5000
LONGEST_TEXT = 500
LARGEST = 1e300
# What calls can be sorted by, and how SQL sees it: what is unknown is least.
RANKS = {
    "start_ms": "start_ms",
    "cost_usd": "COALESCE(cost_usd, -1)",
    "latency_ms": "latency_ms",
    "total_tokens": "COALESCE(total_tokens, -1)",
}

# Where any of a call's text may match; `span` is the content of its span.
HAS_TEXT = (
    "(LOWER(c.id || ' ' || c.operation || ' ' || COALESCE(c.feature, '') || ' '"
    " || COALESCE(c.model, '') || ' ' || COALESCE(c.user_id, '') || ' '"
    " || COALESCE(c.session_id, '') || ' ' || COALESCE(c.error_type, '') || ' '"
    " || COALESCE(c.error_message, '')) LIKE :plain ESCAPE '!'"
    " OR LOWER(COALESCE(c.content, {span}, '')) LIKE :written ESCAPE '!')"
)

_token = re.compile(r"(-?[0-9][0-9.e+-]{0,30})_([0-9a-f]{32})")
_special = re.compile(r"([!%_])")


class Position(msgspec.Struct, frozen=True):
    """Where a list of calls goes on."""

    start_ms: int
    id: str


class Searched(msgspec.Struct, frozen=True):
    """Some calls that were found, the token that goes on, and how far back it looked.

    `next` and `back_to_ms` are None when everything was looked at.
    """

    rows: list[RecentCall]
    next: str | None
    back_to_ms: int | None


def ranked_position(page: str | None, ascending: bool) -> tuple[float, str]:
    """What the rows of a page come after.

    Raises:
        QuestionError: the token is none that was given out.
    """
    if page is None:
        return (-LARGEST, "") if ascending else (LARGEST, "")
    found = _token.fullmatch(page)
    try:
        if found is not None:
            return float(found[1]), found[2]
    except ValueError:
        pass
    raise QuestionError(f"page={page[:50]!r}: give the `next` of the page before")


def ranked_page(rows: list[RecentCall], limit: int, by: str) -> Page[RecentCall]:
    """The rows but for one too many, which tells that there is another page."""
    if len(rows) <= limit:
        return Page(rows, None)
    last = rows[limit - 1]
    value = getattr(last, by)
    return Page(rows[:limit], f"{-1 if value is None else value!r}_{last.id}")


def patterns(text: str) -> tuple[str, str]:
    """What `LIKE` looks for in plain text, and in JSON that holds JSON texts.

    Raises:
        QuestionError: the text is empty or too long.
    """
    wanted = text.strip().lower()
    if not wanted or len(wanted) > LONGEST_TEXT:
        raise QuestionError(f"search for 1 to {LONGEST_TEXT} characters")
    return _like(wanted), _like(_in_json(_in_json(wanted)))


def searched(found: Sequence[Found], text: str, limit: int, last: Position | None) -> Searched:
    """What of these calls really has the text: SQL also finds names of JSON's own.

    Args:
        found: newest first.
        text: to look for.
        limit: most rows.
        last: of the calls that were looked at; None when there were no more.
    """
    rows: list[RecentCall] = []
    for call in found:
        if len(rows) == limit:
            return Searched(rows, f"{rows[-1].start_ms}-{rows[-1].id}", rows[-1].start_ms)
        if has_text(call, text):
            rows.append(call)
    if last is None:
        return Searched(rows, None, None)
    return Searched(rows, f"{last.start_ms}-{last.id}", last.start_ms)


def has_text(call: Found | EveryCall, text: str) -> bool:
    """Whether the text is in what was asked or answered, in a name or an error."""
    wanted = text.strip().lower()
    return any(wanted in one.lower() for one in _texts(call))


def _like(text: str) -> str:
    return "%" + _special.sub(r"!\1", text) + "%"


def _in_json(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]


def _texts(call: Found | EveryCall) -> Iterator[str]:
    for name in ("id", "operation", "feature", "model", "user_id", "session_id", "error_type"):
        yield getattr(call, name) or ""
    yield call.error_message or ""
    kept = Content()
    if call.content is not None:
        kept = content.of_ledger(call.content)
    elif call.span is not None:
        kept = content.of_span(call.span)
    yield from _leaves(kept.prompt)
    yield from _leaves(kept.response)
    for tool in kept.tool_calls:
        yield from (tool.name, tool.arguments or "", tool.result or "")


def _leaves(value: Any) -> Iterator[str]:
    """Every text in a JSON value, without the names of its fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("role", "type"):
                yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
