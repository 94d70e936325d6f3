"""Ingest: the journal's frames over HTTP, answered only once they are committed."""

import threading
import zlib
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from starlette.concurrency import run_in_threadpool

import flowledger
from flowledger.config import Destination
from flowledger.errors import StoreError
from flowledger.journal.frames import split
from flowledger.store import Refusal, Sink, open_sink

__all__ = ["router_for"]

MAX_BODY_BYTES = 16 << 20
MAX_FRAMES_BYTES = 128 << 20
RETRY_SECONDS = "1"


def router_for(destination: Destination) -> APIRouter:
    """The ingest routes, writing to this destination."""
    router = APIRouter(prefix="/api/flowledger/v1")
    store = _Store(destination)

    @router.get("/health")
    def health() -> dict[str, str]:
        """Say that this is a flowledger server."""
        return {"flowledger": flowledger.__version__}

    @router.post("/calls")
    async def calls(request: Request) -> dict[str, Any]:
        """Store a batch of journal frames; records refused for good come back with reasons."""
        payloads = _payloads(_inflated(await _body(request), request.headers))
        refusals = await run_in_threadpool(store.write, payloads)
        refused = [{"index": refusal.place, "reason": refusal.reason} for refusal in refusals]
        return {"stored": len(payloads) - len(refused), "refused": refused}

    return router


class _Store:
    """One sink, opened at the first batch and used by one request at a time."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._lock = threading.Lock()
        self._sink: Sink | None = None

    def write(self, payloads: list[bytes]) -> list[Refusal]:
        try:
            with self._lock:
                if self._sink is None:
                    self._sink = open_sink(self._destination)
                return self._sink.write(payloads)
        except StoreError as exc:
            raise HTTPException(503, str(exc), {"Retry-After": RETRY_SECONDS}) from exc


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"send at most {MAX_BODY_BYTES} bytes at once")
    return bytes(body)


def _inflated(body: bytes, headers: Any) -> bytes:
    encoding = headers.get("content-encoding", "identity")
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise HTTPException(415, f"content encoding {encoding!r}: send gzip or none")
    inflate = zlib.decompressobj(wbits=31)
    try:
        data = inflate.decompress(body, MAX_FRAMES_BYTES)
    except zlib.error as exc:
        raise HTTPException(400, f"the body is not gzip: {exc}") from exc
    if inflate.unconsumed_tail:
        raise HTTPException(413, f"send at most {MAX_FRAMES_BYTES} bytes of frames at once")
    if not inflate.eof:
        raise HTTPException(400, "the gzip body is cut off: send it again")
    return data


def _payloads(data: bytes) -> list[bytes]:
    pieces, _ = split(data, final=True)
    payloads = [piece.payload for piece in pieces if piece.payload is not None]
    if len(payloads) < len(pieces):
        raise HTTPException(400, "a frame is damaged: send the batch again")
    return payloads
