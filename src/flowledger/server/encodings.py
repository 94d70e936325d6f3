"""Content encodings: gzip, deflate, and zstd where Python has it; inflated up to a bound alone."""

import contextlib
import zlib
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from fastapi import HTTPException

__all__ = ["ENCODINGS", "inflate"]

MAX_MEMBERS = 16
ZSTD_WINDOW_LOG = 23  # 8 MiB, the most that HTTP allows: RFC 9659


def _find_zstd() -> Any:
    """Python 3.14 has it in its library; before that the same code is a package."""
    for name in ("compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            return import_module(name)
    return None


zstd = _find_zstd()


def inflate(body: bytes, encoding: str, most: int) -> bytes:
    """The body as it was before the client compressed it.

    Args:
        body: as it was sent.
        encoding: the request's `Content-Encoding`; empty or `identity` for none.
        most: how many bytes it may inflate to; nothing is inflated beyond that.

    Raises:
        HTTPException: 400 damaged or cut off, 413 too large, 415 an encoding not known here.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    inflater = ENCODINGS.get(name)
    if inflater is None:
        raise HTTPException(
            415, f"content encoding {name[:40]!r}: send {' or '.join(ENCODINGS)}, or none"
        )
    return inflater(body, most)


def _gunzip(body: bytes, most: int) -> bytes:
    try:
        return _all_members(body, most, lambda: zlib.decompressobj(wbits=31), "gzip")
    except zlib.error as exc:
        raise HTTPException(400, "the body is not gzip, or is damaged") from exc


def _undeflate(body: bytes, most: int) -> bytes:
    """With zlib's head, as RFC 9110 wants it, or without one, as some clients send it."""
    for wbits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        with contextlib.suppress(zlib.error):
            return _all_members(body, most, partial(zlib.decompressobj, wbits), "deflate")
    raise HTTPException(400, "the body is not deflate, or is damaged")


def _unzstd(body: bytes, most: int) -> bytes:
    options = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    try:
        if (zstd.get_frame_info(body).decompressed_size or 0) > most:  # as its head says
            raise _too_large(most)
        return _all_members(body, most, lambda: zstd.ZstdDecompressor(options=options), "zstd")
    except zstd.ZstdError as exc:
        raise HTTPException(400, "the body is not zstd, or is damaged") from exc


def _all_members(body: bytes, most: int, open_member: Callable[[], Any], name: str) -> bytes:
    """A body may be several compressed pieces one after the other; all of them count."""
    pieces: list[bytes] = []
    room = most
    for _ in range(MAX_MEMBERS):
        member = open_member()
        piece: bytes = member.decompress(body, room + 1)
        room -= len(piece)
        if room < 0:
            raise _too_large(most)
        if not member.eof:
            raise HTTPException(400, f"the {name} body is cut off: send it again")
        pieces.append(piece)
        body = member.unused_data
        if not body:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    raise HTTPException(400, f"more than {MAX_MEMBERS} {name} pieces in one body: send one")


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"send at most {most} bytes at once, inflated: split the batch")


ENCODINGS: dict[str, Callable[[bytes, int], bytes]] = {"gzip": _gunzip, "deflate": _undeflate}
if zstd is not None:
    ENCODINGS["zstd"] = _unzstd
