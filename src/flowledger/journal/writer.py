"""Appending to this process's journal: one `pwrite` a record, on the caller's thread."""

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from flowledger.asynchronous import reraise_asynchronous
from flowledger.errors import JournalError
from flowledger.journal import frames
from flowledger.journal.frames import HEADER_SIZE, Drops
from flowledger.journal.locks import check_flock

__all__ = ["SUFFIX", "Writer", "folder_bytes", "sync_folder"]

SUFFIX = ".journal"
LARGEST_SEGMENT = 16 << 20
SMALLEST_SEGMENT = 64 << 10
RETRY_SECONDS = 1.0


class Writer:
    """The journal of one process: segment files that only this process appends to.

    A segment is locked (`flock`) for as long as its writer may append, so a reader that gets the
    lock knows that nothing more will come. Threads of the process may append at the same time.

    Args:
        folder: where segments go; made when missing, readable by its owner alone.
        producer_id: names the files; time-ordered, so older journals sort first.
        producer: the encoded `Producer` record that opens each segment.
        max_bytes: most that all journals in the folder may hold together.
        fsync: also survive a power cut, at some 0.2 ms a record.
        on_trouble: told in one sentence, at most once a second, why records are not kept.
    """

    def __init__(
        self,
        folder: Path,
        *,
        producer_id: str,
        producer: bytes,
        max_bytes: int,
        fsync: bool = False,
        on_trouble: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._folder = folder
        self._producer_id = producer_id
        self._header = frames.header(producer)
        self._max_bytes = max_bytes
        self._segment_bytes = max(SMALLEST_SEGMENT, min(LARGEST_SEGMENT, max_bytes // 16))
        self._fsync = fsync
        self._on_trouble = on_trouble
        self._lock = threading.RLock()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._writing = False
        self._fd = -1
        self._end = 0
        self._limit = 0
        self._path = Path()
        self._segments = 0
        self._closed: dict[Path, int] = {}
        self._drops = Drops()
        self._retry_at = 0.0
        self._trouble = ""
        self.dropped = 0

    def append(self, seq: int, payload: bytes) -> None:
        """Keep a record; one that there is no room for is counted in `dropped`, and never raised.

        Args:
            seq: the record's number, so that a drop can be told by number.
            payload: the encoded record, at most `frames.MAX_PAYLOAD` bytes.
        """
        self._waiting.append((seq, frames.frame(payload)))
        with self._lock:
            try:
                self._write_waiting()
            except BaseException:
                # Out of a signal handler. What was under way is written before it goes on, and with
                # it what the handler itself recorded.
                self._write_waiting()
                raise

    def written(self) -> dict[Path, int]:
        """Every segment this process wrote, and up to which offset."""
        with self._lock:
            self._write_waiting()
            return {**self._closed, **({self._path: self._end} if self._fd >= 0 else {})}

    def delivered(self, path: Path) -> None:
        """The store has this segment: it need not be asked about again."""
        with self._lock:
            self._closed.pop(path, None)

    def reopen_if_removed(self) -> None:
        """Start a new segment when somebody deleted the one in use."""
        with self._lock:
            if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
                self._close()

    def close(self) -> None:
        """Release the segment: whoever ships next may finish and delete it."""
        with self._lock:
            self._write_waiting()
            self._close()

    def forget(self) -> None:
        """In a forked child: drop the parent's file without unlocking it for the parent."""
        self._close()

    def _write_waiting(self) -> None:
        """Write what waits, oldest first.

        The garbage collector or a signal handler may record a call at any instruction of the thread
        that is at work here. It may not wait for itself, so its record joins those that wait.

        An exception of a signal handler may end this at any instruction. A record stays first in
        line until the segment's end has moved behind it, so writing it once more puts the same
        bytes in the same place.
        """
        if self._writing:
            return
        self._writing = True
        try:
            while self._waiting:
                self._keep(*self._waiting[0])
                self._waiting.popleft()
        finally:
            self._writing = False

    def _keep(self, seq: int, framed: bytes) -> None:
        try:
            self._write(framed)
        except (OSError, JournalError) as exc:
            reraise_asynchronous(exc)
            self._drop(seq, str(exc))

    def _write(self, framed: bytes) -> None:
        if self._fd < 0 or self._end + len(framed) > self._limit:
            self._open_next(len(framed))
        written = os.pwrite(self._fd, framed, self._end)
        if written != len(framed):
            os.ftruncate(self._fd, self._end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        if self._fsync:
            os.fdatasync(self._fd)
        self._end += written

    def _open_next(self, needed: int) -> None:
        if time.monotonic() < self._retry_at:
            raise JournalError(self._trouble)
        try:
            self._make_folder()
            self._check_room(needed)
            self._begin(self._segment_bytes)
        except (OSError, JournalError) as exc:
            reraise_asynchronous(exc)
            self._trouble = str(exc)
            self._retry_at = time.monotonic() + RETRY_SECONDS
            raise

    def _make_folder(self) -> None:
        if self._folder.is_dir():
            return
        missing = [folder for folder in self._folder.parents if not folder.exists()]
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._fsync:
            for made in (self._folder, *missing):
                sync_folder(made.parent)

    def _check_room(self, needed: int) -> None:
        used = folder_bytes(self._folder)
        if used + max(needed, self._segment_bytes) <= self._max_bytes:
            return
        if self._fd < 0 and used + HEADER_SIZE <= self._max_bytes:
            self._begin(HEADER_SIZE)  # no place for records, but for how many were dropped
        raise JournalError(
            f"{used} bytes wait in {self._folder}, the most journal_max_bytes allows is "
            f"{self._max_bytes}: see why nothing is shipped with `flowledger doctor`"
        )

    def _begin(self, limit: int) -> None:
        """Go on in a new segment that is to grow to `limit` bytes."""
        before = self._fd
        if before >= 0:
            self._closed[self._path] = self._end
        fd, path = self._create()
        # Nothing is called in between: an exception of a signal handler cannot come here.
        self._fd, self._path, self._end, self._limit = fd, path, HEADER_SIZE, limit
        if before >= 0:
            self._drops = Drops()
            os.close(before)
        if self._drops.dropped:
            os.pwrite(fd, *frames.drops_slot(self._drops))

    def _create(self) -> tuple[int, Path]:
        """A new locked segment; it gets its name only once it is locked."""
        self._segments += 1
        path = self._folder / f"{self._producer_id}-{self._segments:06d}{SUFFIX}"
        unnamed = path.with_suffix(".new")
        fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.pwrite(fd, self._header, 0) != HEADER_SIZE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            check_flock(unnamed)
            unnamed.rename(path)
            if self._fsync:
                os.fdatasync(fd)
                sync_folder(self._folder)
        except BaseException:
            os.close(fd)
            unnamed.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
        return fd, path

    def _drop(self, seq: int, reason: str) -> None:
        """Count a record that was not kept, where it survives this process being killed."""
        self.dropped += 1
        first = min(self._drops.first or seq, seq)
        self._drops = Drops(self._drops.dropped + 1, first, max(self._drops.last, seq))
        if self._fd >= 0:
            try:
                os.pwrite(self._fd, *frames.drops_slot(self._drops))
            except OSError as exc:
                reason = f"{reason}; the count of dropped records cannot be kept either: {exc}"
        self._on_trouble(reason)

    def _close(self) -> None:
        if self._fd >= 0:
            self._closed[self._path] = self._end
            # Forgotten before it is closed: a number that is closed may be another file's by now.
            fd, self._fd = self._fd, -1
            os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut: syncing a file does not sync its name."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def folder_bytes(folder: Path) -> int:
    """How many bytes the files of a folder hold, files that vanish meanwhile left out."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat().st_size
    return total
