"""Middleware for FastAPI, Starlette and any other ASGI application: who asks, for every call."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeAlias

import msgspec

from flowledger import config
from flowledger.capture.context import context, current, told
from flowledger.integrations.carrying import extracted
from flowledger.records import new_id

__all__ = ["HEADERS", "FlowledgerMiddleware", "outgoing", "user_of"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Extractor: TypeAlias = Callable[[Scope], Mapping[str, Any] | None]

HEADERS = {
    "session_id": "x-session-id",
    "request_id": "x-request-id",
    "audit_reason": "x-audit-reason",
}


class FlowledgerMiddleware:
    """Runs each request in a `flowledger.context` of its own, streamed answers included.

    The user is the one that Starlette's authentication found. A header that names the user is read
    only when you say so, `headers={**HEADERS, "user_id": "x-user-id"}`: do that where a proxy of
    yours sets it, since anybody may send one. A request without an id gets one.

    Args:
        app: the application.
        headers: the header of each field of `flowledger.context`; any other name becomes a tag.
            Values that are too long or not printable are left out.
        extractors: functions from the ASGI scope to such fields, which win over headers.
    """

    def __init__(
        self,
        app: App,
        *,
        headers: Mapping[str, str] = HEADERS,
        extractors: Sequence[Extractor] = (),
    ) -> None:
        self._app = app
        self._fields = {header.lower().encode(): field for field, header in headers.items()}
        self._extractors = (self._of_headers, user_of, *extractors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or one websocket in its context."""
        if scope["type"] not in ("http", "websocket") or not config.switched_on():
            await self._app(scope, receive, send)
            return
        fields = extracted(self._extractors, scope)
        fields["tags"] = {"request_id": new_id(), **fields["tags"]}
        with context(**fields):
            await self._app(scope, receive, send)

    def _of_headers(self, scope: Scope) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, value in scope["headers"]:
            field = self._fields.get(name.lower())
            if field is not None:
                found.setdefault(field, value.decode("utf-8", "replace"))
        return found


def outgoing(headers: Mapping[str, str] = HEADERS) -> dict[str, str]:
    """Who asks here, as headers for a request to a service that has this middleware.

    A value that no header takes is left out.

    Args:
        headers: the header of each field of the context, or of one of its tags.
    """
    here = current()
    known = {**here.tags, **msgspec.structs.asdict(here.actor)}
    found = {header: known.get(field) for field, header in headers.items()}
    texts = {header: told(value) for header, value in found.items() if value is not None}
    return {header: text for header, text in texts.items() if text.isascii() and text.isprintable()}


def user_of(scope: Scope) -> dict[str, Any]:
    """The user that Starlette's `AuthenticationMiddleware` found, when it runs before ours."""
    user = scope.get("user")
    if user is None or not getattr(user, "is_authenticated", False):
        return {}
    return {"user_id": _identity(user)}


def _identity(user: Any) -> Any:
    try:
        return user.identity
    except (AttributeError, NotImplementedError):
        return getattr(user, "display_name", None)
