"""Reading journals: what waits, what the store already has, and what is damaged."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self
from weakref import WeakSet

from flowledger.errors import RecordError
from flowledger.journal import frames
from flowledger.journal.frames import HEADER_SIZE, Drops, Piece
from flowledger.journal.locks import check_flock
from flowledger.journal.writer import SUFFIX
from flowledger.records import Gap, Gone, decode, encode, new_id

__all__ = ["Batch", "Segment", "acknowledged_offset", "rejected_records", "segment_paths"]

CHUNK_BYTES = 4 << 20


class Batch(NamedTuple):
    """Pieces read from a segment; acknowledge `end` once the store has them."""

    pieces: list[Piece]
    end: int


class Segment:
    """One segment file, read from the last acknowledged offset on.

    Used by one shipping loop, from one thread. `finished()` tells whether its writer is gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _no_fork:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            _opened_here.add(self)
        head = os.pread(self._fd, HEADER_SIZE, 0)
        self.producer = frames.read_producer(head)
        self.acknowledged = max(HEADER_SIZE, frames.read_acknowledged(head))
        self.rejected = frames.read_rejected(head)
        self._locked = False
        self._telling_drops = 0
        self._told_drops = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def waiting(self) -> int:
        """Bytes that the store does not have yet."""
        return max(0, os.fstat(self._fd).st_size - self.acknowledged)

    def finished(self) -> bool:
        """Whether the writer released the segment or died; from then on it belongs to us.

        Raises:
            JournalError: `flock` does not work here, so nobody can know.
        """
        if not self._locked:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            check_flock(self.path)
            self._locked = True
        return True

    def read(self, max_bytes: int = CHUNK_BYTES) -> Batch:
        """What follows the acknowledged offset: at least one piece when a whole one is there."""
        final = self.finished()
        while True:
            data = os.pread(self._fd, max_bytes, self.acknowledged)
            at_end = len(data) < max_bytes
            pieces, length = frames.split(data, final=final and at_end)
            if pieces or at_end or max_bytes > frames.MAX_PAYLOAD * 2:
                return Batch(pieces, self.acknowledged + length)
            max_bytes *= 2

    def bytes_of(self, piece: Piece, start: int) -> bytes:
        """The raw bytes of a damaged piece that starts at an offset after the acknowledged one."""
        return os.pread(self._fd, piece.end - start, self.acknowledged + start)

    def has_new_drops(self) -> bool:
        """Whether the writer dropped records that the store was not told of yet."""
        return self._drops().dropped > self._told_drops

    def new_drops(self) -> bytes | None:
        """What the writer dropped in all, as a `Gap` record, when that grew since it was told.

        It counts as told once the batch that carries it is acknowledged.
        """
        drops = self._drops()
        if drops.dropped <= self._told_drops:
            return None
        self._telling_drops = drops.dropped
        gap = Gap(
            id=new_id(),
            producer=self._producer_id(),
            start_ns=time.time_ns(),
            first_seq=drops.first,
            last_seq=drops.last,
            count=drops.dropped,
            reason="no room in the journal",
        )
        return encode(gap)

    def last_words(self) -> bytes | None:
        """That the writer will write no more, as a `Gone` record: for its last segment, read."""
        producer = self._producer_id()
        if not producer:
            return None
        written_ns = os.fstat(self._fd).st_mtime_ns
        return encode(Gone(id=producer, producer=producer, start_ns=written_ns))

    def acknowledge(self, offset: int, rejected: int = 0) -> None:
        """The store has everything up to this offset, whatever happens to us next.

        Args:
            offset: the end of what was read.
            rejected: how many of the records read were set aside instead.
        """
        self.rejected += rejected
        os.pwrite(self._fd, *frames.acknowledged_slot(offset, self.rejected))
        self.acknowledged = offset
        self._told_drops = self._telling_drops

    def empty(self) -> None:
        """Leave only the header of a finished segment, from which its writer learns of losses."""
        if os.fstat(self._fd).st_size > HEADER_SIZE:
            os.ftruncate(self._fd, HEADER_SIZE)

    def remove(self) -> None:
        """Delete a finished segment."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file and of its lock."""
        with _no_fork:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _drops(self) -> Drops:
        return frames.read_drops(os.pread(self._fd, HEADER_SIZE, 0))

    def _producer_id(self) -> str:
        try:
            return decode(self.producer).producer if self.producer else ""
        except RecordError:
            return ""


_opened_here: WeakSet[Segment] = WeakSet()
# A child forked halfway through would keep a file open, or close the number of another file.
_no_fork = threading.Lock()


def _let_go() -> None:
    """In a forked child: a segment stays locked as long as any copy of its file is open."""
    for segment in list(_opened_here):
        segment._close()
    _no_fork.release()


os.register_at_fork(
    before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_let_go
)


def acknowledged_offset(path: Path) -> int | None:
    """How far the store has a segment, or None when it is done with and deleted."""
    head = _header_of(path)
    return None if head is None else frames.read_acknowledged(head)


def rejected_records(path: Path) -> int:
    """How many records of a segment were refused or damaged; 0 when it is deleted.

    A segment of which some were rejected is deleted only after its process has ended.
    """
    return frames.read_rejected(_header_of(path) or b"")


def _header_of(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(HEADER_SIZE)
    except FileNotFoundError:
        return None


def segment_paths(folder: Path) -> Iterator[Path]:
    """The segments of a folder, oldest first."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))
    except FileNotFoundError:
        return
    yield from (folder / name for name in names)
