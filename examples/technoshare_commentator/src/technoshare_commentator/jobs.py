"""The durable queue: jobs in a SQLite file.

A worker holds a lock as long as it lives, so the job of one that was killed is the next one's at
once.
"""

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

MOST_ATTEMPTS = 3
PAUSE = 5.0
TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, url TEXT, channel_id TEXT, message_ts TEXT,
    state TEXT DEFAULT 'waiting', worker TEXT, attempts INTEGER DEFAULT 0,
    not_before REAL DEFAULT 0, said TEXT, UNIQUE (url, channel_id, message_ts)
)
"""
# Waiting jobs whose time has come, and jobs in hands, which may be those of a dead worker.
OPEN = """
SELECT id, url, channel_id, message_ts, attempts + 1, worker FROM jobs
WHERE state = 'working' OR (state = 'waiting' AND not_before <= ?) ORDER BY rowid
"""


class Job(NamedTuple):
    """A link that somebody shared: where it was shared, and which attempt this is."""

    id: str
    url: str
    channel_id: str
    message_ts: str
    attempt: int


class Queue:
    """Jobs in a file, for any number of workers on this machine."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._locks = path.with_suffix(".workers")
        self._locks.mkdir(exist_ok=True)
        with self._changing() as database:
            database.execute(TABLE)

    def submit(self, url: str, channel_id: str, message_ts: str) -> str:
        """Add a job and return its id; Slack may tell of the same message twice."""
        told = (url, channel_id, message_ts)
        with self._changing() as database:
            database.execute(
                "INSERT OR IGNORE INTO jobs (id, url, channel_id, message_ts) VALUES (?, ?, ?, ?)",
                (uuid4().hex[:12], *told),
            )
            [row] = database.execute(
                "SELECT id FROM jobs WHERE (url, channel_id, message_ts) = (?, ?, ?)", told
            )
        return str(row[0])

    @contextmanager
    def worker(self) -> Iterator[str]:
        """A worker's name, alive for the time of the block."""
        path = self._locks / uuid4().hex
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield path.name
            path.unlink()

    def claim(self, worker: str) -> Job | None:
        """The oldest job that nobody alive works on; None when there is none now."""
        with self._changing() as database:
            for *told, holder in database.execute(OPEN, (time.time(),)).fetchall():
                if holder is None or not self._alive(holder):
                    database.execute(
                        "UPDATE jobs SET state = 'working', worker = ?, attempts = ? WHERE id = ?",
                        (worker, told[-1], told[0]),
                    )
                    return Job(*told)
        return None

    def finish(self, job: Job, outcome: str) -> None:
        """The job is done, with this outcome."""
        self._leave(job, "done", outcome, 0)

    def fail(self, job: Job, error: Exception) -> None:
        """The job failed: it waits for another attempt, if it has one left."""
        state = "waiting" if job.attempt < MOST_ATTEMPTS else "failed"
        self._leave(job, state, f"{type(error).__name__}: {error}", time.time() + PAUSE)

    def states(self) -> dict[str, str]:
        """The state of each job by its URL."""
        with self._changing() as database:
            return dict(database.execute("SELECT url, state FROM jobs ORDER BY rowid").fetchall())

    def _leave(self, job: Job, state: str, said: str, not_before: float) -> None:
        with self._changing() as database:
            database.execute(
                "UPDATE jobs SET state = ?, said = ?, not_before = ?, worker = NULL WHERE id = ?",
                (state, said, not_before, job.id),
            )

    def _alive(self, worker: str) -> bool:
        try:
            with (self._locks / worker).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        finally:
            database.close()
