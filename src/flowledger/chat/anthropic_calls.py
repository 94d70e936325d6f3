"""Records the calls of an Anthropic client until `flowledger.wrap` knows one.

Delete this file and its one use in `providers.py` once `wrap` does.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from flowledger.capture import recorder
from flowledger.capture.context import carried
from flowledger.chat.protocols import PROTOCOLS
from flowledger.chat.steps import Reply
from flowledger.records import Kind

__all__ = ["record_calls"]


def record_calls(client: Any) -> Any:
    """The client, with each call of its `messages.create` recorded."""
    create = client.messages.create
    asynchronous = type(client).__name__.startswith("Async")
    recorded = _asynchronous if asynchronous else _synchronous
    client.messages.create = recorded(create, client.api_key)
    return client


def _synchronous(create: Any, key: str) -> Any:
    def recorded(**asked: Any) -> Any:
        call = _Recording(asked, key)
        try:
            answer = create(**asked)
        except BaseException as exc:
            call.failed(exc)
            raise
        if asked.get("stream"):
            return _Stream(answer, call)
        call.answered(PROTOCOLS["anthropic"].read(answer))
        return answer

    return recorded


def _asynchronous(create: Any, key: str) -> Any:
    async def recorded(**asked: Any) -> Any:
        call = _Recording(asked, key)
        try:
            answer = await create(**asked)
        except BaseException as exc:
            call.failed(exc)
            raise
        if asked.get("stream"):
            return _Stream(answer, call)
        call.answered(PROTOCOLS["anthropic"].read(answer))
        return answer

    return recorded


class _Recording:
    def __init__(self, asked: dict[str, Any], key: str) -> None:
        self._asked = asked
        self._key = key
        self._context = carried.get()
        self.pending = recorder.begin()

    def answered(self, reply: Reply) -> None:
        self.ended({"response": reply.text, "model": reply.model, "usage": reply.usage})

    def failed(self, exc: BaseException) -> None:
        outcome = recorder.failure(exc)
        told = [(text or "").replace(self._key, "***") for text in (outcome.message, outcome.stack)]
        self.ended({"outcome": msgspec.structs.replace(outcome, message=told[0], stack=told[1])})

    def ended(self, fields: dict[str, Any]) -> None:
        asked = self._asked
        token = carried.set(self._context)
        try:
            recorder.finish(
                self.pending,
                lambda: {
                    "operation": "messages",
                    "kind": str(Kind.CHAT),
                    "provider": "anthropic",
                    "model_asked": asked["model"],
                    "settings": {k: asked.get(k) for k in ("temperature", "max_tokens", "stream")},
                    "prompt": asked["messages"],
                    **fields,
                },
            )
        finally:
            carried.reset(token)


class _Stream:
    """The client's stream, recorded when it ends."""

    def __init__(self, stream: Any, call: _Recording) -> None:
        self._stream = stream
        self._call = call
        self._gathering = PROTOCOLS["anthropic"].gathering()

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.close()

    async def __aenter__(self) -> "_Stream":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stream.close()

    def __iter__(self) -> Iterator[Any]:
        try:
            for chunk in self._stream:
                self._saw(chunk)
                yield chunk
            self._call.answered(self._gathering.reply())
        except BaseException as exc:
            self._call.failed(exc)
            raise

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for chunk in self._stream:
                self._saw(chunk)
                yield chunk
            self._call.answered(self._gathering.reply())
        except BaseException as exc:
            self._call.failed(exc)
            raise

    def _saw(self, chunk: Any) -> None:
        if self._gathering.add(chunk):
            recorder.first_token(self._call.pending)
