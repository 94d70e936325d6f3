"""One chat from its beginning to its record: who asks, what came of it, and the audit trail."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from flowledger.capture import recorder
from flowledger.capture.context import carried, context
from flowledger.capture.tracking import inside
from flowledger.chat.steps import Answer, Ask, Reply
from flowledger.records import Actor, Kind, Outcome

__all__ = ["Talk"]

FEATURE = "chat"


class Talk:
    """A chat under way.

    Calls of models made inside are recorded by their clients. Where there may be more than one,
    or none was sent, the chat itself is recorded too, as the call they belong to.

    Args:
        asked: the caller's arguments, as they came.
    """

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self._pending = recorder.begin()
        self._timestamp = datetime.now(UTC).isoformat()
        actor = {name: asked[name] for name in ACTOR}
        tags = {"chat_type": str(asked["chat_type"])}
        feature = asked["feature"] or carried.get().feature or FEATURE
        with context(**actor, feature=feature, tags=tags):
            self._context = carried.get()
        self.grouped = True  # until it is known that there will be one call alone
        self.sent = False
        self.hides: list[Callable[[str], str]] = []
        self.model = asked["model"]

    @contextmanager
    def running(self) -> Iterator[None]:
        """While our own code runs: calls made here are this chat's."""
        token = carried.set(self._context)
        try:
            if self.grouped:
                with inside(self._pending):
                    yield
            else:
                yield
        finally:
            carried.reset(token)

    @property
    def actor(self) -> Actor:
        """Who asks, as the arguments and the context around say."""
        return self._context.actor

    def tag(self, **tags: object) -> None:
        """Say more of this chat's calls from here on."""
        together = {**self._context.tags, **tags}
        self._context = msgspec.structs.replace(self._context, tags=together)

    def succeeded(self, answer: Answer, ask: Ask) -> dict[str, Any]:
        """Record it, and say all about it."""
        self.tag(chat_method=answer.method, **({"chat_why": answer.why} if answer.why else {}))
        self._record({"response": answer.content})
        method = f"{ask.chat_type}: {answer.method}, {answer.why}" if answer.why else answer.method
        return {
            "content": answer.content,
            "reasoning": answer.reasoning,
            "method": method,
            "sources": [msgspec.structs.asdict(source) for source in answer.sources],
            "audit_trail": self._audit(None, answer.replies),
            "token_usage": _tokens(answer.replies),
            "cost_usd": _cost(answer.replies),
        }

    def failed(self, error: BaseException) -> dict[str, Any]:
        """Record it, and say what went wrong."""
        self._record({"outcome": self._without_keys(recorder.failure(error))})
        return {
            "content": "",
            "reasoning": "",
            "method": str(self._asked["chat_type"]),
            "sources": [],
            "audit_trail": self._audit(error, ()),
            "token_usage": _tokens(()),
            "cost_usd": None,
        }

    def _without_keys(self, outcome: Outcome) -> Outcome:
        """The outcome without the keys that were sent, which some servers' errors quote."""
        texts = [outcome.message or "", outcome.stack or ""]
        for hide in self.hides:
            texts = [hide(text) for text in texts]
        return msgspec.structs.replace(outcome, message=texts[0], stack=texts[1])

    def left(self, pieces: list[str]) -> None:
        """The caller wants no more of the stream."""
        note = "closed by the caller before its end"
        self._record({"response": "".join(pieces), "notes": [note]})

    def _record(self, what: dict[str, Any]) -> None:
        if self.sent and not self.grouped:
            return
        token = carried.set(self._context)
        try:
            recorder.finish(self._pending, lambda: {**self._fields(), **what})
        finally:
            carried.reset(token)

    def _fields(self) -> dict[str, Any]:
        asked = self._asked
        model = self.model if isinstance(self.model, str) else None
        # A chat that sent nothing asked that model itself; any other only groups what asked it.
        asking = {"params": {"model": model}} if self.sent else {"model_asked": model}
        return {
            **asking,
            "operation": FEATURE,
            "kind": str(Kind.CHAT),
            "settings": {name: asked[name] for name in ("temperature", "max_tokens")},
            "prompt": asked["message"],
        }

    def _audit(self, error: BaseException | None, replies: tuple[Reply, ...]) -> dict[str, Any]:
        actor = self._context.actor
        answered = replies[-1].model if replies else None
        duration = time.perf_counter_ns() - self._pending.started
        return {
            "timestamp": self._timestamp,
            "user_id": actor.user_id,
            "session_id": actor.session_id,
            "audit_reason": actor.audit_reason,
            "model_id": answered or self.model,
            "temperature": self._asked["temperature"],
            "max_tokens": self._asked["max_tokens"],
            "processing_time_ms": duration / 1e6,
            "success": error is None,
            "error": None if error is None else f"{type(error).__name__}: {error}",
        }


ACTOR = ("user_id", "session_id", "persona_id", "audit_reason")


def _tokens(replies: tuple[Reply, ...]) -> dict[str, int | None]:
    """The sums of what the providers reported; None where one reported nothing."""
    return {
        "input": _sum([r.usage and r.usage.input_tokens for r in replies]),
        "output": _sum([r.usage and r.usage.output_tokens for r in replies]),
        "total": _sum([r.usage and r.usage.total_tokens for r in replies]),
    }


def _cost(replies: tuple[Reply, ...]) -> float | None:
    cost: float | None = _sum([reply.cost_usd for reply in replies])
    return cost


def _sum(numbers: list[Any]) -> Any:
    """Their sum; None where one of them is not known."""
    return None if None in numbers or not numbers else sum(numbers)
