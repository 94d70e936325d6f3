"""Conversations: the turns of a session, numbered, and found again when asked for."""

from collections.abc import Callable

import msgspec

from flowledger import logs
from flowledger.chat.library import Turn, opened
from flowledger.chat.running import Method
from flowledger.chat.steps import Ask, Message, Work
from flowledger.chat.talk import Talk
from flowledger.errors import DocumentError

__all__ = ["forget", "remembered"]

MOST_TURNS = 20


def remembered(ask: Ask, talk: Talk, method: Callable[[Ask], Method]) -> Method:
    """The method with the turns of its session before it, and itself added to them.

    Without a session it is the method alone. Where conversations cannot be kept, the chat goes on
    unless it needs the earlier turns.
    """
    if ask.session_id is None:
        return (yield from method(ask))
    session, asked = ask.session_id, ask.message
    turn: Turn | None = yield Work(run=lambda: _begun(session, asked, ask.remembers))
    if turn is None:
        return (yield from method(ask))
    talk.tag(chat_turn=turn.number)
    if ask.remembers:
        ask = msgspec.structs.replace(ask, history=tuple(_messages(turn)))
    answer = yield from method(ask)
    yield Work(run=lambda: _ended(turn, answer.content))
    return answer


def forget(session_id: str) -> int:
    """Delete every turn of a session from the chat store, and say how many there were."""
    return opened().forget(session_id)


def _begun(session: str, asked: str, needed: bool) -> Turn | None:
    try:
        return opened().begin_turn(session, asked, MOST_TURNS if needed else 0)
    except DocumentError as exc:
        if needed:
            raise
        logs.warn("chat", "the turns of a session are not kept: %s", exc)
        return None


def _ended(turn: Turn, answer: str) -> None:
    try:
        opened().end_turn(turn, answer)
    except DocumentError as exc:
        logs.warn("chat", "the turns of a session are not kept: %s", exc)


def _messages(turn: Turn) -> list[Message]:
    return [
        message
        for asked, answered in turn.earlier
        for message in (
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answered},
        )
    ]
