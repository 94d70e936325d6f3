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

from flowledger.errors import JournalError
from flowledger.journal import frames
from flowledger.journal.frames import HEADER_SIZE, Drops
from flowledger.journal.locks import check_flock

__all__ = ["SUFFIX", "Writer", "folder_bytes"]

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
        self._held = _Held(self._keep)
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

    def append(self, seq: int, payload: bytes) -> bool:
        """Keep a record; False when there is no room for it, which is counted and never raised.

        Args:
            seq: the record's number, so that a drop can be told by number.
            payload: the encoded record, at most `frames.MAX_PAYLOAD` bytes.
        """
        framed = frames.frame(payload)
        with self._held as alone:
            if alone:
                return self._keep(seq, framed)
            self._held.late.append((seq, framed))
            return True

    def written(self) -> dict[Path, int]:
        """Every segment this process wrote, and up to which offset."""
        with self._held:
            return {**self._closed, **({self._path: self._end} if self._fd >= 0 else {})}

    def delivered(self, path: Path) -> None:
        """The store has this segment: it need not be asked about again."""
        with self._held:
            self._closed.pop(path, None)

    def reopen_if_removed(self) -> None:
        """Start a new segment when somebody deleted the one in use."""
        with self._held:
            if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
                self._close()

    def close(self) -> None:
        """Release the segment: whoever ships next may finish and delete it."""
        with self._held:
            self._close()

    def forget(self) -> None:
        """In a forked child: drop the parent's file without unlocking it for the parent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _keep(self, seq: int, framed: bytes) -> bool:
        try:
            self._write(framed)
        except (OSError, JournalError) as exc:
            self._drop(seq, str(exc))
            return False
        return True

    def _write(self, framed: bytes) -> None:
        if self._fd < 0 or self._end + len(framed) > self._limit:
            self._open_next(len(framed))
        written = os.pwrite(self._fd, framed, self._end)
        if written != len(framed):
            os.ftruncate(self._fd, self._end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._end += written
        if self._fsync:
            os.fdatasync(self._fd)

    def _open_next(self, needed: int) -> None:
        now = time.monotonic()
        if now < self._retry_at:
            raise JournalError(self._trouble)
        self._retry_at = now + RETRY_SECONDS
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_room(needed)
            self._begin(self._segment_bytes)
        except (OSError, JournalError) as exc:
            self._trouble = str(exc)
            raise
        self._retry_at = 0.0

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
        fd, path = self._create()
        if self._fd >= 0:
            self._close()
            self._drops = Drops()
        self._fd, self._path, self._end, self._limit = fd, path, HEADER_SIZE, limit
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
        except (OSError, JournalError):
            os.close(fd)
            unnamed.unlink(missing_ok=True)
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
            os.close(self._fd)
            self._fd = -1


class _Held:
    """The writer's lock, and what its holder is handed meanwhile.

    The garbage collector, or a signal handler, may end a call at any instruction of the thread that
    holds the lock. To wait would be to wait for ever, so that record is kept when the lock is let
    go.
    """

    def __init__(self, keep: Callable[[int, bytes], bool]) -> None:
        self._keep = keep
        self._lock = threading.RLock()
        self._depth = 0
        self.late: deque[tuple[int, bytes]] = deque()

    def __enter__(self) -> bool:
        """Hold the lock; whether this thread did not hold it already."""
        self._lock.acquire()
        self._depth += 1
        return self._depth == 1

    def __exit__(self, *exc_info: object) -> None:
        self._depth -= 1
        # Whoever interrupts from here on, at depth 0, keeps a record by itself.
        while self.late and self._depth == 0:
            self._depth = 1
            while self.late:
                self._keep(*self.late.popleft())
            self._depth = 0
        self._lock.release()


def folder_bytes(folder: Path) -> int:
    """How many bytes the files of a folder hold, files that vanish meanwhile left out."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat().st_size
    return total
