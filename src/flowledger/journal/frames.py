"""The bytes of a journal: a header, then frames.

A segment file starts with a header of `HEADER_SIZE` bytes: the magic word, the frame of the
`Producer` that writes it, and two slots that are written in place:

    drops         how many records the writer could not keep, and between which numbers
    acknowledged  up to which offset the store has everything, but for how many records that it
                  refused or that were damaged

A frame is two marker bytes, the payload's length and its CRC-32, then the payload. Only one process
appends to a segment, so a valid frame further on proves that damage before it is no write under
way.

A process that is killed in the middle of a write leaves a torn frame: the beginning of one, and the
end of the file. The call had not returned, so nothing is lost. Damage to a whole frame is another:

    in its payload or checksum  the length is right, so the frame does not reach beyond the file
    in its length               what is there is the whole payload, and matches the checksum
    in its marker, or zeros     no frame begins with that

Two cases look like a torn frame and are none: damage to both length and checksum of the very last
frame, and a file that lost its end, which would not be noticed at the end of a frame either.
"""

import struct
from typing import NamedTuple
from zlib import crc32

__all__ = [
    "HEADER_SIZE",
    "MAX_PAYLOAD",
    "Drops",
    "Piece",
    "acknowledged_slot",
    "drops_slot",
    "frame",
    "header",
    "read_acknowledged",
    "read_drops",
    "read_producer",
    "read_rejected",
    "split",
]

MAGIC = b"FLJRNL01"
MARKER = b"\xf1\x1e"
HEADER_SIZE = 1024
MAX_PAYLOAD = 64 << 20
PRODUCER_OFFSET = len(MAGIC)
DROPS_OFFSET = 896
ACKNOWLEDGED_OFFSET = 960

_frame_head = struct.Struct("<2sII")
_drops = struct.Struct("<QQQ")
_acknowledged = struct.Struct("<QQ")
_checksum = struct.Struct("<I")


class Drops(NamedTuple):
    """How many records a writer could not keep, and the lowest and highest of their numbers."""

    dropped: int = 0
    first: int = 0
    last: int = 0


class Piece(NamedTuple):
    """A stretch of a segment: a payload, or damage with None for one; `end` is where it ends.

    `torn` marks the beginning of a frame whose end was never written.
    """

    payload: bytes | None
    end: int
    torn: bool = False


def frame(payload: bytes) -> bytes:
    """The payload as a frame."""
    return _frame_head.pack(MARKER, len(payload), crc32(payload)) + payload


def header(producer: bytes) -> bytes:
    """The header of a new segment written by this producer (an encoded `Producer` record)."""
    head = MAGIC + frame(producer)
    if len(head) > DROPS_OFFSET:
        raise ValueError(f"a producer's record must fit in {DROPS_OFFSET} bytes")
    return head.ljust(HEADER_SIZE, b"\0")


def drops_slot(drops: Drops) -> tuple[bytes, int]:
    """The bytes that say how much was dropped, and their offset in the segment."""
    return _with_checksum(_drops.pack(*drops)), DROPS_OFFSET


def acknowledged_slot(offset: int, rejected: int = 0) -> tuple[bytes, int]:
    """The bytes that say how far the store has everything, and their offset in the segment.

    Args:
        offset: the end of the last frame that was delivered.
        rejected: how many records of the segment were refused or damaged so far.
    """
    return _with_checksum(_acknowledged.pack(offset, rejected)), ACKNOWLEDGED_OFFSET


def read_producer(head: bytes) -> bytes | None:
    """The producer's payload from a header, or None when the header is damaged."""
    if not head.startswith(MAGIC):
        return None
    pieces, _ = split(head[PRODUCER_OFFSET:DROPS_OFFSET], final=True)
    return pieces[0].payload if pieces else None


def read_drops(head: bytes) -> Drops:
    """What the header says was dropped."""
    body = _checked(head, DROPS_OFFSET, _drops.size)
    return Drops(*_drops.unpack(body)) if body else Drops()


def read_acknowledged(head: bytes) -> int:
    """The offset up to which the store has everything; a damaged slot starts over."""
    body = _checked(head, ACKNOWLEDGED_OFFSET, _acknowledged.size)
    return int(_acknowledged.unpack(body)[0]) if body else HEADER_SIZE


def read_rejected(head: bytes) -> int:
    """How many records of the segment were refused or damaged; 0 where the slot is damaged."""
    body = _checked(head, ACKNOWLEDGED_OFFSET, _acknowledged.size)
    return int(_acknowledged.unpack(body)[1]) if body else 0


def split(data: bytes, *, final: bool) -> tuple[list[Piece], int]:
    """The pieces of a stretch of frames, and how many bytes of it they take up.

    Args:
        data: bytes from the start of a frame on.
        final: nothing will be appended any more, so an unfinished frame at the end is damage.
    """
    pieces: list[Piece] = []
    position = 0
    while position < len(data):
        payload = _payload_at(data, position)
        if payload is None:
            following = _next_frame(data, position + 1)
            if following is None and not final:
                break
            torn = following is None and _is_torn(data[position:])
            position = len(data) if following is None else following
            pieces.append(Piece(None, position, torn))
        else:
            position += _frame_head.size + len(payload)
            pieces.append(Piece(payload, position))
    return pieces, position


def _payload_at(data: bytes, position: int) -> bytes | None:
    start = position + _frame_head.size
    if start > len(data):
        return None
    marker, length, checksum = _frame_head.unpack_from(data, position)
    if marker != MARKER or length > MAX_PAYLOAD or start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if crc32(payload) == checksum else None


def _is_torn(rest: bytes) -> bool:
    """Whether the rest of a segment is the beginning of a frame and not a damaged frame."""
    if len(rest) < _frame_head.size:
        return MARKER.startswith(rest[: len(MARKER)])
    marker, length, checksum = _frame_head.unpack_from(rest)
    payload = rest[_frame_head.size :]
    reaches_beyond: bool = marker == MARKER and len(payload) < length <= MAX_PAYLOAD
    return reaches_beyond and crc32(payload) != checksum


def _next_frame(data: bytes, position: int) -> int | None:
    while (position := data.find(MARKER, position)) != -1:
        if _payload_at(data, position) is not None:
            return position
        position += 1
    return None


def _with_checksum(body: bytes) -> bytes:
    return body + _checksum.pack(crc32(body))


def _checked(head: bytes, offset: int, size: int) -> bytes | None:
    body = head[offset : offset + size]
    checksum = head[offset + size : offset + size + _checksum.size]
    return body if len(checksum) == 4 and _checksum.pack(crc32(body)) == checksum else None
