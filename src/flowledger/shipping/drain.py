"""Emptying a journal folder into a sink, one batch at a time."""

import base64
import fcntl
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from flowledger import logs
from flowledger.journal import Batch, Piece, Segment, folder_bytes, segment_paths
from flowledger.store import Sink

__all__ = ["REJECTED", "Drain"]

REJECTED = "rejected"
REJECTED_MAX_BYTES = 256 << 20


class _Read(NamedTuple):
    """Pieces of one segment that are on their way to the store."""

    segment: Segment
    pieces: list[Piece]
    end: int


class _Rejected(NamedTuple):
    """Bytes of a segment that the store will not have, and why."""

    segment: Segment
    raw: bytes
    reason: str


class Drain:
    """Takes what waits in a folder of journals to a sink, and deletes what is done.

    Args:
        folder: the journal folder of one destination.
        sink: where records go.
        owned_by: only segments of this producer, and those whose writer is gone; all when empty.
    """

    def __init__(self, folder: Path, sink: Sink, owned_by: str = "") -> None:
        self._folder = folder
        self._sink = sink
        self._owned_by = owned_by
        self._open: dict[Path, Segment] = {}
        self._redelivered = True
        self.live_writers = 0

    def step(self) -> int:
        """Deliver one batch; returns how many records went, 0 when nothing waits.

        Raises:
            StoreUnavailable, StoreMisconfigured: the batch stays in the journal.
        """
        reads = self._gather()
        records = [(read.segment, payload) for read in reads for payload in _payloads(read)]
        refusals = self._sink.write(
            [payload for _, payload in records], redelivered=self._redelivered
        )
        # Only now: a batch that the store did not take is read again, and so is its damage.
        rejected = [_Rejected(*records[place], reason) for place, reason in refusals]
        rejected += [damage for read in reads for damage in self._damages(read)]
        self._reject(rejected)
        counts = Counter(one.segment.path for one in rejected)
        for read in reads:
            read.segment.acknowledge(read.end, counts[read.segment.path])
        self._redelivered = False
        self._remove_finished()
        return sum(len(read.pieces) for read in reads)

    def close(self) -> None:
        """Let go of every segment."""
        for segment in self._open.values():
            segment.close()
        self._open.clear()

    def _gather(self) -> list[_Read]:
        reads: list[_Read] = []
        room = self._sink.batch_bytes
        self.live_writers = 0
        for segment in self._segments():
            finished = segment.finished()
            self.live_writers += not finished
            if room <= 0 or not (finished or self._is_ours(segment)):
                continue
            batch = segment.read(room) if segment.waiting() else Batch([], segment.acknowledged)
            if batch.pieces or segment.has_new_drops():
                reads.append(_Read(segment, batch.pieces, batch.end))
                room -= batch.end - segment.acknowledged
        return reads

    def _segments(self) -> list[Segment]:
        paths = list(segment_paths(self._folder))
        for gone in self._open.keys() - set(paths):
            self._open.pop(gone).close()
        for path in paths:
            if path not in self._open:
                try:
                    self._open[path] = Segment(path)
                except FileNotFoundError:
                    continue  # another shipper finished it meanwhile
                except OSError as exc:
                    logs.warn("shipping", "a journal cannot be opened: %s", exc)
        return [self._open[path] for path in paths if path in self._open]

    def _is_ours(self, segment: Segment) -> bool:
        return segment.path.name.startswith(self._owned_by)

    def _damages(self, read: _Read) -> Iterator[_Rejected]:
        """What cannot be read as a record, but for the last write of a process that was killed."""
        start = 0
        for piece in read.pieces:
            if piece.torn and self._is_last(read.segment.path):
                logs.warn("shipping", "a process was killed while it wrote a record")
            elif piece.payload is None:
                raw = read.segment.bytes_of(piece, start)
                yield _Rejected(read.segment, raw, "damaged in the journal")
            start = piece.end

    def _is_last(self, path: Path) -> bool:
        """Whether this is the last segment of its process: no write was torn before it went on."""
        own = [one for one in segment_paths(self._folder) if _writer(one) == _writer(path)]
        return path == max(own, default=path)

    def _remove_finished(self) -> None:
        done = {
            path: segment
            for path, segment in self._open.items()
            if segment.finished() and not segment.waiting() and not segment.has_new_drops()
        }
        if not done:
            return
        # The next segment of a process is there before it lets go of one.
        going_on = {_writer(path) for path in segment_paths(self._folder) if path not in done}
        self._tell_last_words({_writer(path): one for path, one in done.items()}, going_on)
        for path, segment in done.items():
            if segment.rejected and _writer(path) in going_on:
                segment.empty()
            else:
                segment.remove()
                del self._open[path]

    def _tell_last_words(self, done: Mapping[str, Segment], going_on: Set[str]) -> None:
        """Of each process whose last segments these are."""
        gone = [done[writer] for writer in done.keys() - going_on]
        words = [(one, record) for one in gone if (record := one.last_words()) is not None]
        if words:
            refusals = self._sink.write([record for _, record in words])
            self._reject([_Rejected(*words[place], reason) for place, reason in refusals])

    def _reject(self, rejected: Sequence[_Rejected]) -> None:
        """Move records to `rejected/`, one line of JSON each, so that the rest go on."""
        if not rejected:
            return
        logs.warn("shipping", "%d records were rejected: see `flowledger doctor`", len(rejected))
        now = datetime.now(UTC)
        folder = self._folder / REJECTED
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder_bytes(folder) > REJECTED_MAX_BYTES:
            logs.warn("shipping", "rejected records are no longer kept: %s is full", folder)
            return
        lines = [
            msgspec.json.encode(
                {"at": now, "reason": why, "record": base64.b64encode(raw).decode()}
            )
            for _, raw, why in rejected
        ]
        _append(folder / f"{now.date().isoformat()}.jsonl", b"\n".join(lines) + b"\n")


def _writer(path: Path) -> str:
    return path.name.partition("-")[0]


def _payloads(read: _Read) -> list[bytes]:
    """The records of a read, after their producer and what that could not keep."""
    records = (read.segment.producer, read.segment.new_drops(), *(p.payload for p in read.pieces))
    return [payload for payload in records if payload is not None]


def _append(path: Path, data: bytes) -> None:
    """Append all of it or nothing: the journal, its only other copy, is deleted afterwards.

    Raises:
        OSError: no room, or another shipper is appending; the batch is delivered again.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        # To cut off a part of our lines must not cut off another's behind them.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        end = os.fstat(fd).st_size
        try:
            _write_all(fd, data)
        except OSError:
            os.ftruncate(fd, end)
            raise
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child forked meanwhile has the file open, too
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
