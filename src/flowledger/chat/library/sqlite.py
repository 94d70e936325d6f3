"""The library in a SQLite file: words by FTS5's BM25, vectors by bits and then exactly."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowledger.chat.library import Document, Found, Listed, Turn
from flowledger.errors import ConfigError, DocumentError

if TYPE_CHECKING:
    from types import ModuleType

    from flowledger.chat.library.bits import Bits

__all__ = ["SqliteLibrary"]

COMPARED_EXACTLY = 200
BUSY_SECONDS = 30
MAPPED_BYTES = 4 << 30
TABLES = """
CREATE TABLE IF NOT EXISTS documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    embedding TEXT NOT NULL,
    added_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS passages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    document_id INTEGER NOT NULL REFERENCES documents (id),
    place TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS passages_document ON passages (document_id);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (
    text, content='passages', content_rowid='id',
    tokenize='porter unicode61 remove_diacritics 2'
);
CREATE TABLE IF NOT EXISTS vectors (passage_id INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS vector_bits (passage_id INTEGER PRIMARY KEY, bits BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS turns (
    session_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    asked TEXT NOT NULL,
    answered TEXT,
    started_ms INTEGER NOT NULL,
    PRIMARY KEY (session_id, number)
) WITHOUT ROWID;
"""
ADD_DOCUMENT = "INSERT INTO documents (source, digest, embedding, added_ms) VALUES (?, ?, ?, ?)"
ADD_PASSAGE = "INSERT INTO passages (id, document_id, place, text) VALUES (?, ?, ?, ?)"
ADD_WORDS = "INSERT INTO words (rowid, text) SELECT id, text FROM passages WHERE id BETWEEN ? AND ?"
LAST_ID = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'passages'"
REMOVE = (
    "INSERT INTO words (words, rowid, text) "
    "SELECT 'delete', id, text FROM passages WHERE document_id = :id",
    "DELETE FROM vectors WHERE passage_id IN (SELECT id FROM passages WHERE document_id = :id)",
    "DELETE FROM vector_bits WHERE passage_id IN (SELECT id FROM passages WHERE document_id = :id)",
    "DELETE FROM passages WHERE document_id = :id",
    "DELETE FROM documents WHERE id = :id",
)
LISTED = """
SELECT d.source, d.digest, d.embedding, count(p.id)
FROM documents d LEFT JOIN passages p ON p.document_id = d.id
GROUP BY d.id ORDER BY d.source
"""
BY_WORDS = "SELECT rowid, -rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"
PASSAGES = """
SELECT p.id, d.source, p.place, p.text
FROM passages p JOIN documents d ON d.id = p.document_id WHERE p.id IN ({})
"""
VECTORS = "SELECT passage_id, vector FROM vectors WHERE passage_id IN ({})"
NEW_BITS = "SELECT passage_id, bits FROM vector_bits WHERE passage_id > ? ORDER BY passage_id"
BEGIN_TURN = """
INSERT INTO turns (session_id, number, asked, started_ms)
SELECT :session, coalesce(max(number), 0) + 1, :asked, :now FROM turns WHERE session_id = :session
RETURNING number
"""
EARLIER = """
SELECT asked, answered FROM turns
WHERE session_id = ? AND number < ? AND answered IS NOT NULL ORDER BY number DESC LIMIT ?
"""
END_TURN = "UPDATE turns SET answered = ? WHERE session_id = ? AND number = ?"


class SqliteLibrary:
    """A library in this file, made when it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._bits: Bits | None = None
        self._last_bits = 0
        self._version: object = None
        with self._connected() as connection:
            connection.executescript(f"BEGIN IMMEDIATE; {TABLES} COMMIT;")

    def add(self, documents: Sequence[Document]) -> None:
        """Add documents in one transaction, each in the place of an older one of its source."""
        bits = {one.source: _bits().bits_of(one.vectors) for one in documents if one.vectors}
        with self._transaction() as connection:
            first = connection.execute(LAST_ID).fetchone()[0] + 1
            last = first - 1
            for document in documents:
                _remove(connection, document.source)
                last = _add(connection, document, bits.get(document.source, []), last)
            connection.execute(ADD_WORDS, (first, last))

    def remove(self, source: str) -> bool:
        """Delete a document; whether it was there."""
        with self._transaction() as connection:
            return _remove(connection, source)

    def listed(self) -> list[Listed]:
        """Every document, by source."""
        with self._connected() as connection:
            return [Listed(*row) for row in connection.execute(LISTED)]

    def is_empty(self) -> bool:
        """Whether there is nothing to find."""
        with self._connected() as connection:
            return connection.execute("SELECT 1 FROM passages LIMIT 1").fetchone() is None

    def by_words(self, words: Sequence[str], limit: int) -> list[tuple[int, float]]:
        """Ids of passages with any of these words, best first, with scores: more is better."""
        if not words:
            return []
        asked = " OR ".join(f'"{word}"' for word in words)
        with self._connected() as connection:
            return connection.execute(BY_WORDS, (asked, limit)).fetchall()

    def by_vector(self, vector: bytes, limit: int) -> list[tuple[int, float]]:
        """Ids of passages nearest to a unit vector, nearest first, with the cosine."""
        bits = _bits()
        with self._connected() as connection:
            near = self._current_bits(connection).nearest(
                bits.bits_of([vector])[0], max(COMPARED_EXACTLY, 4 * limit)
            )
            rows = connection.execute(VECTORS.format(_marks(near)), near).fetchall()
        rows = [row for row in rows if len(row[1]) == len(vector)]
        if not rows:
            return []
        cosines = bits.cosines(vector, [found for _, found in rows])
        pairs = zip((one for one, _ in rows), cosines, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])[:limit]

    def passages(self, ids: Sequence[int]) -> dict[int, Found]:
        """Those of these passages that are still there."""
        with self._connected() as connection:
            rows = connection.execute(PASSAGES.format(_marks(ids)), list(ids))
            return {row[0]: Found(*row) for row in rows}

    def begin_turn(self, session_id: str, asked: str, earlier: int) -> Turn:
        """Number a session's next turn, and find so many answered ones before it."""
        now = {"session": session_id, "asked": asked, "now": time.time_ns() // 1_000_000}
        with self._transaction() as connection:
            number = connection.execute(BEGIN_TURN, now).fetchone()[0]
            rows = connection.execute(EARLIER, (session_id, number, earlier)).fetchall()
        return Turn(session_id, number, rows[::-1])

    def end_turn(self, turn: Turn, answered: str) -> None:
        """Keep the answer of a turn."""
        with self._transaction() as connection:
            connection.execute(END_TURN, (answered, turn.session_id, turn.number))

    def forget(self, session_id: str) -> int:
        """Delete a session; how many turns it had."""
        with self._transaction() as connection:
            statement = "DELETE FROM turns WHERE session_id = ?"
            return connection.execute(statement, (session_id,)).rowcount

    def forget_before(self, before_ms: int) -> int:
        """Delete turns that began before a time; how many there were."""
        with self._transaction() as connection:
            statement = "DELETE FROM turns WHERE started_ms < ?"
            return connection.execute(statement, (before_ms,)).rowcount

    def overwrite_freed(self) -> None:
        """Leave no bytes behind of turns that were deleted."""
        with self._connected() as connection:
            connection.execute("VACUUM")
            if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise DocumentError(
                    f"the chat store {self._path} is being read: deleted turns stay in its log"
                    " until it is vacuumed again"
                )

    def close(self) -> None:
        """Close every connection of this process."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._local = threading.local()

    def _current_bits(self, connection: sqlite3.Connection) -> "Bits":
        """All bits there are, read once and then only what is new.

        Passages that were removed stay among them until the process ends: they are not found when
        they are compared exactly.
        """
        with self._lock:
            if self._bits is None:
                self._bits = _bits().Bits()
            rows = connection.execute(NEW_BITS, (self._last_bits,)).fetchall()
            if rows:
                self._bits.extend(rows)
                self._last_bits = rows[-1][0]
            return self._bits

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; what the database raises comes out as `DocumentError`."""
        try:
            connection = getattr(self._local, "connection", None) or self._connect()
            yield connection
        except (sqlite3.Error, OSError) as exc:
            raise DocumentError(f"the chat store {self._path} cannot be used: {exc}") from exc

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # SQLite says it in its own words
            self._path.touch(mode=0o600)  # its -wal and -shm get the same mode
        connection = sqlite3.connect(
            self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")  # vectors are read here and there
        with self._lock:
            self._connections.append(connection)
        self._local.connection = connection
        return connection


def _remove(connection: sqlite3.Connection, source: str) -> bool:
    found = connection.execute("SELECT id FROM documents WHERE source = ?", (source,)).fetchone()
    if found is None:
        return False
    for statement in REMOVE:
        connection.execute(statement, {"id": found[0]})
    return True


def _add(
    connection: sqlite3.Connection, document: Document, bits: Sequence[bytes], last: int
) -> int:
    """Add a document whose passages' ids follow `last`; the last of them."""
    about = (document.source, document.digest, document.embedding, time.time_ns() // 1_000_000)
    document_id = connection.execute(ADD_DOCUMENT, about).lastrowid
    numbered = list(enumerate(document.passages, last + 1))
    rows = ((one, document_id, passage.place, passage.text) for one, passage in numbered)
    connection.executemany(ADD_PASSAGE, rows)
    for table, values in (("vectors", document.vectors), ("vector_bits", bits)):
        rows_of_values: Any = zip((one for one, _ in numbered), values, strict=bool(values))
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows_of_values)
    return last + len(numbered)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _bits() -> "ModuleType":
    try:
        from flowledger.chat.library import bits
    except ImportError as exc:
        raise ConfigError("vectors need numpy: pip install 'flowledger[chat]'") from exc
    return bits
