"""Bytes in and bytes out: request bodies, forms, streams and broken answers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from email.message import Message
from email.parser import BytesHeaderParser
from itertools import islice
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flowledger.testing.stub.steering import Refusal

MAX_BODY = 20 * 1024 * 1024
# Without a pause between them, events leave in packets of so many.
_PACKET = 64
_EVENT = b"data: "


async def read(request: Request) -> bytes:
    """The request's body.

    Raises:
        Refusal: it is longer than 20 MB.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MAX_BODY:
        raise _too_long(int(announced))
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise _too_long(len(body))
    return bytes(body)


def _too_long(length: int) -> Refusal:
    message = f"Maximum content size limit ({MAX_BODY}) exceeded ({length} bytes read)"
    return Refusal(413, message, code="request_too_large")


def parsed(content_type: str, body: bytes) -> tuple[Any, bytes]:
    """The body's JSON or form fields, None when it is neither, and the uploaded file."""
    if content_type.startswith("multipart/form-data"):
        return _form(content_type, body)
    try:
        return msgspec.json.decode(body), b""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, b""


def _form(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    # By hand, because Starlette needs another package for it.
    fields: dict[str, Any] = {}
    file = b""
    for part in (b"\r\n" + body).split(b"\r\n--" + _boundary(content_type))[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = BytesHeaderParser().parsebytes(head)
        name = str(headers.get_param("name", "", "content-disposition"))
        if name == "file":
            file = content
            fields[name] = {"filename": headers.get_filename(), "bytes": len(content)}
        else:
            fields[name] = content.decode(errors="replace")
    return fields, file


def _boundary(content_type: str) -> bytes:
    message = Message()
    message["content-type"] = content_type
    return str(message.get_boundary("")).encode()


async def left_within(request: Request, seconds: float) -> bool:
    """Wait; True as soon as the client leaves before the time is over."""
    if not seconds:
        return False
    try:
        async with asyncio.timeout(seconds):
            await _until_gone(request.receive)
    except TimeoutError:
        return False
    return True


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def paced(events: Iterator[bytes], pause: float) -> AsyncIterator[bytes]:
    """The events one by one with a pause between them, or in packets when there is none."""
    size = 1 if pause else _PACKET
    while packet := b"".join(islice(events, size)):
        yield packet
        await asyncio.sleep(pause)


def spoilt(events: Iterator[bytes], broken: bytes) -> Iterator[bytes]:
    """The first event, one that is no JSON, and the others."""
    yield from islice(events, 1)
    yield broken
    yield from events


class Silence(Response):
    """No answer at all, until the client leaves."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for the client to leave."""
        await _until_gone(receive)


class Cut(Response):
    """The first half of an answer, in a stream up to the middle of an event; then it hangs up."""

    def __init__(self, whole: Response, hang_up: Callable[[Scope], None]) -> None:
        self._whole = whole
        self._hang_up = hang_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the half and close the connection."""
        body = bytes(self._whole.body)
        half = len(body) // 2
        if _EVENT in body[half:]:
            half = body.index(_EVENT, half) + len(_EVENT) + 5
        headers = self._whole.raw_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body[:half], "more_body": True})
        self._hang_up(scope)
        await _until_gone(receive)
