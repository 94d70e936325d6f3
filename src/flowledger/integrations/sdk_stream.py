"""Streams and raw responses of a provider's client, watched while the caller reads them.

The object the caller gets is the client's own. Only its inner iterator is replaced, by one that
hands on the same chunks in the same order, and `close` is listened to.
"""

import asyncio
import functools
import inspect
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from flowledger import logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.capture import recorder
from flowledger.integrations.sdk_call import Recording, never_raises
from flowledger.integrations.sdk_parts import Parts

__all__ = ["Watch", "follow_stream", "follow_unread", "is_stream"]

LEAVING = (asyncio.CancelledError, GeneratorExit)


def is_stream(value: Any) -> bool:
    """Whether it is a client's `Stream` or `AsyncStream`, of whichever package."""
    return hasattr(value, "_iterator") and hasattr(value, "response")


def _is_asynchronous(stream: Any) -> bool:
    return hasattr(type(stream), "__anext__")


@never_raises
def follow_stream(stream: Any, call: Recording, hides_usage: bool) -> None:
    """Record the call when the stream ends, breaks, is closed or forgotten.

    Args:
        stream: a client's stream of which nothing was read yet.
        call: what to record.
        hides_usage: the caller did not ask for the usage that the stream will report.
    """
    watch = Watch(call, call.endpoint.parts(), hides_usage)
    chunks = _AsyncChunks if _is_asynchronous(stream) else _Chunks
    stream._iterator = chunks(stream._iterator, watch)
    watch.listen(stream)


@never_raises
def follow_unread(answer: Any, call: Recording) -> None:
    """Record the call when the caller is done with a raw response that was not read yet.

    Args:
        answer: what `with_streaming_response` gives, and `with_raw_response` for a stream.
        call: what to record.
    """
    finalizer = weakref.finalize(answer, call.taken_raw, answer.http_response)

    def parsed(value: Any) -> None:
        if is_stream(value) and finalizer.detach():
            vars(answer).pop("parse")
            follow_stream(value, call, hides_usage=False)

    vars(answer)["parse"] = _then(answer.parse, parsed)
    if hasattr(answer, "close"):
        vars(answer)["close"] = _then(answer.close, lambda _: finalizer())


def _then(function: Callable[..., Any], after: Callable[[Any], object]) -> Callable[..., Any]:
    """The function, or coroutine function; what it gives is shown to `after`."""
    after = never_raises(after)

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        value = await function(*args, **kwargs)
        after(value)
        return value

    def called(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        after(value)
        return value

    chosen: Callable[..., Any] = awaited if inspect.iscoroutinefunction(function) else called
    return functools.wraps(function)(chosen)


class Watch:
    """What is known of one stream: what came, and whether its reader is at work right now."""

    def __init__(self, call: Recording, parts: Parts, hides_usage: bool) -> None:
        self._call = call
        self._parts = parts
        self._hides_usage = hides_usage
        self._last_ns = time.perf_counter_ns()
        self._forget: Callable[[], object] = lambda: None
        self.reading = False

    def listen(self, stream: Any) -> None:
        """Notice when the caller closes the stream, or forgets about it.

        The client's helpers close the HTTP response, and never the stream.
        """
        held = vars(stream.response)
        name = "aclose" if _is_asynchronous(stream) else "close"
        held[name] = _then(getattr(stream.response, name), self._closed)
        forget = self.until_forgotten(stream)
        self._forget = lambda: (forget(), held.pop(name, None))

    def until_forgotten(self, stream: Any) -> Callable[[], object]:
        """Notice when the caller forgets the stream; returns how to stop that."""
        self._forget = weakref.finalize(stream, self.left).detach
        return self._forget

    def shows(self, chunk: Any) -> bool:
        """Take in a chunk; whether the caller would have got it without us."""
        self._last_ns = time.perf_counter_ns()
        try:
            if self._parts.saw(chunk) and self._call.pending.first_token_ns is None:
                recorder.first_token(self._call.pending)
        except Exception as exc:  # noqa: BLE001 - no fault of ours may reach the application
            reraise_asynchronous(exc)
            logs.warn("client", "a chunk is not recorded: %s", type(exc).__name__)
        return not (self._hides_usage and _is_ours(chunk))

    @never_raises
    def ended(self, error: BaseException) -> None:
        """Its reader raised: there is no more, or it broke."""
        self._forget()
        if isinstance(error, StopIteration | StopAsyncIteration):
            self._call.streamed(self._parts)
        elif isinstance(error, LEAVING):
            self._call.left(self._parts, self._last_ns)
        else:
            self._call.failed(error, self._parts)

    @never_raises
    def left(self) -> None:
        """Nobody reads it any more."""
        self._forget()
        self._call.left(self._parts, self._last_ns)

    def _closed(self, _: object) -> None:
        # The reader itself closes the response too, when it comes to its end.
        if not self.reading:
            self.left()


@never_raises
def _is_ours(chunk: Any) -> bool:
    """Whether it came only because we asked for the usage; what we caused in others is undone."""
    if chunk.usage is None:
        # Servers write `"usage": null` into every other chunk.
        chunk.model_fields_set.discard("usage")
        return False
    return not chunk.choices


class _Chunks:
    """Stands in for the iterator inside a `Stream`."""

    def __init__(self, chunks: Iterator[Any], watch: Watch) -> None:
        self._chunks = chunks
        self._watch = watch

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        watch = self._watch
        while True:
            watch.reading = True
            try:
                chunk = next(self._chunks)
            except BaseException as exc:
                watch.ended(exc)
                raise
            finally:
                watch.reading = False
            if watch.shows(chunk):
                return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chunks, name)


class _AsyncChunks:
    """Stands in for the iterator inside an `AsyncStream`."""

    def __init__(self, chunks: AsyncIterator[Any], watch: Watch) -> None:
        self._chunks = chunks
        self._watch = watch

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        watch = self._watch
        while True:
            watch.reading = True
            try:
                chunk = await anext(self._chunks)
            except BaseException as exc:
                watch.ended(exc)
                raise
            finally:
                watch.reading = False
            if watch.shows(chunk):
                return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chunks, name)
