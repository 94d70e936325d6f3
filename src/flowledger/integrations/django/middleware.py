"""Middleware that says who asks for every call a request makes, streamed answers included."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from flowledger import config, logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.capture.context import Context, carried, context
from flowledger.integrations.carrying import extracted
from flowledger.integrations.django import conf
from flowledger.records import new_id

__all__ = ["FlowledgerMiddleware"]

REQUEST_ID = "X-Request-ID"
AUDIT_REASON = "X-Audit-Reason"
SHORT_HASH = 32


class FlowledgerMiddleware:
    """Runs each request in a `flowledger.context` of its own; place it after Django's own.

    The user is `request.user`'s key; the session is a hash of the session's key, which must be in
    no record; the request's id and the reason come from headers. `EXTRACTORS` names functions from
    the request to fields of `flowledger.context`, which win. For WSGI and ASGI alike.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._extractors = [_of_user, _of_session, _of_headers, *conf.callables("EXTRACTORS")]
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer one request."""
        return self._aanswer(request) if self._async else self._answer(request)

    def _answer(self, request: HttpRequest) -> HttpResponseBase:
        with context(**self._fields(request)):
            response: HttpResponseBase = self._get_response(request)
            return _streamed(response, carried.get())

    async def _aanswer(self, request: HttpRequest) -> HttpResponseBase:
        await _load_user(request)
        with context(**self._fields(request)):
            response: HttpResponseBase = await self._get_response(request)
            return _streamed(response, carried.get())

    def _fields(self, request: HttpRequest) -> dict[str, Any]:
        if not config.switched_on():
            return {}
        fields = extracted(self._extractors, request)
        return {**fields, "tags": {"request_id": new_id(), **fields["tags"]}}


async def _load_user(request: HttpRequest) -> None:
    """Have the user at hand: asynchronous code may not ask the database behind `request.user`."""
    auser = getattr(request, "auser", None)
    if auser is not None and config.switched_on():
        try:
            request.user = await auser()
        except Exception as exc:  # noqa: BLE001 - the view is the one to meet a database that is away
            reraise_asynchronous(exc)
            logs.warn("django", "the user of a request is not known: %s", type(exc).__name__)


def _of_user(request: HttpRequest) -> Mapping[str, Any]:
    user: Any = getattr(request, "user", None)
    return {"user_id": user.pk} if getattr(user, "is_authenticated", False) else {}


def _of_session(request: HttpRequest) -> Mapping[str, Any]:
    key = getattr(getattr(request, "session", None), "session_key", None)
    return {"session_id": hashlib.sha256(key.encode()).hexdigest()[:SHORT_HASH]} if key else {}


def _of_headers(request: HttpRequest) -> Mapping[str, Any]:
    return {
        "request_id": request.headers.get(REQUEST_ID),
        "audit_reason": request.headers.get(AUDIT_REASON),
    }


def _streamed(response: HttpResponseBase, inside: Context) -> HttpResponseBase:
    """The answer; a streamed one is made after the middleware has returned."""
    streaming: Any = response
    if getattr(response, "streaming", False):
        through = _athrough if streaming.is_async else _through
        streaming.streaming_content = through(streaming.streaming_content, inside)
    return response


def _through(pieces: Iterator[Any], inside: Context) -> Iterator[Any]:
    while True:
        before = carried.get()
        carried.set(inside)
        try:
            piece = next(pieces)
        except StopIteration:
            return
        finally:
            carried.set(before)
        yield piece


async def _athrough(pieces: AsyncIterator[Any], inside: Context) -> AsyncIterator[Any]:
    while True:
        before = carried.get()
        carried.set(inside)
        try:
            piece = await anext(pieces)
        except StopAsyncIteration:
            return
        finally:
            carried.set(before)
        yield piece
