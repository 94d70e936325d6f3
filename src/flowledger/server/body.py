"""Reading a request's body: so long, so large, and so much of all of them at once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from flowledger.server.problems import busy
from flowledger.server.settings import ServerSettings

__all__ = ["Bodies"]


class Bodies:
    """The request bodies that one worker holds in memory.

    Args:
        settings: `max_body_bytes`, `max_waiting_bytes` and `body_seconds`.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, counted until the block is left.

        Raises:
            HTTPException: 408 too slow, 413 too large, 429 no room for it now.
        """
        self._check_length(request)
        body = bytearray()
        try:
            await self._read_into(body, request)
            yield bytes(body)
        finally:
            self._held -= len(body)

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count what a body was inflated to until the block is left.

        Raises:
            HTTPException: 429 no room for it now.
        """
        self._check_room(size)
        self._held += size
        try:
            yield
        finally:
            self._held -= size

    def _check_length(self, request: Request) -> None:
        """Refuse by the length that is announced, before a byte of it is read."""
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._settings.max_body_bytes:
            raise self._too_large()

    async def _read_into(self, body: bytearray, request: Request) -> None:
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                async for chunk in request.stream():
                    self._take(body, chunk)
        except TimeoutError:
            raise HTTPException(
                408,
                f"the body did not arrive within {self._settings.body_seconds:g} seconds: send less"
                " at once",
                {"Connection": "close"},
            ) from None
        except ClientDisconnect:
            raise HTTPException(400, "the body was cut off: send it again") from None

    def _take(self, body: bytearray, chunk: bytes) -> None:
        if len(body) + len(chunk) > self._settings.max_body_bytes:
            raise self._too_large()
        self._check_room(len(chunk))
        body += chunk
        self._held += len(chunk)

    def _check_room(self, size: int) -> None:
        if self._held + size > self._settings.max_waiting_bytes:
            raise busy("the server holds as many requests as it takes: send it again later")

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413, f"send at most {self._settings.max_body_bytes} bytes at once: split the batch"
        )
