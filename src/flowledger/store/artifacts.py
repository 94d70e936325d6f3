"""Artifacts of the bulk sink: into MLflow's artifact store, or kept in the database until it works.

An artifact store that is away must neither hold up calls nor lose files, and the journal is emptied
in order. So a file that is not taken goes to `llm_artifacts`, in the same transaction that makes
its record known, and is tried again until it is.
"""

import base64
import hashlib
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from flowledger import logs
from flowledger.errors import RecordError
from flowledger.records import Artifact, decode, encode
from flowledger.store import Refusal, chain
from flowledger.store.job_entries import Piece
from flowledger.store.job_rows import Statements, insert_into
from flowledger.store.job_writing import new_pieces
from flowledger.store.leaves import Leaves
from flowledger.store.uploads import Uploads, is_below
from flowledger.store.writers import Writer

__all__ = ["Artifacts", "FileLeaf", "FilesNote", "file_leaf"]

FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 60.0
AT_ONCE = 4
LOOKED_AT = 1000


class FileLeaf(msgspec.Struct, frozen=True, array_like=True):
    """What the chain says of a file: its run, and SHA-256 of its path and of its content."""

    run_id: str
    path: str
    sha256: str


class FilesNote(msgspec.Struct, frozen=True):
    """The note of a link about files."""

    files: list[FileLeaf]


def file_leaf(run_id: str, artifact: Artifact) -> FileLeaf:
    """The digests of a file, which hold no text of it."""
    path = hashlib.sha256(artifact.path.encode()).hexdigest()
    return FileLeaf(run_id, path, hashlib.sha256(artifact.content).hexdigest())


class _Waiting(NamedTuple):
    producer_id: str
    seq: int
    run_id: str
    folder: str | None


class Artifacts:
    """Delivers artifacts for one sink.

    Args:
        writer: the database, which knows where a run's artifacts go.
        roots: folders they may be in; empty allows any.
    """

    def __init__(self, writer: Writer, roots: Sequence[str] = ()) -> None:
        self._writer = writer
        self._roots = roots
        self._uploads = Uploads()
        self._failures = 0
        self._try_at = 0.0

    def deliver(self, pieces: Sequence[tuple[int, Piece]]) -> list[Refusal]:
        """Put the artifacts of a batch where they belong; those refused for good come back."""
        if not pieces:
            return []
        with self._writer.transaction() as cursor:
            fresh = {made.key for made in new_pieces(self._writer, cursor, [p for _, p in pieces])}
            run_ids = sorted({made.run_id or "" for _, made in pieces})
            folders = self._values(cursor, "runs", "run_uuid", "artifact_uri", run_ids)
            behind = self._values(cursor, "llm_artifacts", "run_id", "run_id", run_ids)
        into, refused, files = Statements(), [], list[FileLeaf]()
        for index, made in pieces:
            if made.key not in fresh:
                continue
            try:
                late = self._put(folders.get(made.run_id or ""), made, made.run_id in behind)
            except RecordError as exc:
                refused.append(Refusal(index, str(exc)))
                continue
            into.add_record(made)
            assert isinstance(made.record, Artifact)
            files.append(file_leaf(made.run_id or "", made.record))
            if late is not None:
                behind[made.run_id or ""] = ""  # what follows must not be overtaken
                into.rows["llm_artifacts"].append(_row(made, late))
        self._execute(into, files)
        return refused

    def catch_up(self) -> None:
        """Try what waits once more, when it is time."""
        if time.monotonic() < self._try_at:
            return
        waiting = self._oldest()
        for one in waiting:
            if not self._try_again(one):
                return
        if len(waiting) < AT_ONCE:
            self._try_at = time.monotonic() + LONGEST_BACK_OFF_SECONDS  # other sinks may fail, too

    def _put(self, folder: str | None, made: Piece, behind: bool) -> str | None:
        """Upload one; returns why not, when it must be tried again."""
        assert isinstance(made.record, Artifact)
        if folder is None:
            raise RecordError(f"there is no run {made.run_id} to keep it with")
        if not self._may_write(folder):
            raise RecordError(
                f"the artifacts of run {made.run_id} go to {folder[:200]}, and this server writes"
                " below its own artifact root alone: name an experiment without its own location"
            )
        if behind or (self._failures and time.monotonic() < self._try_at):
            return "others wait before it"
        return self._uploaded(folder, made.record)

    def _may_write(self, folder: str) -> bool:
        return not self._roots or is_below(folder, self._roots)

    def _uploaded(self, folder: str, artifact: Artifact) -> str | None:
        try:
            self._uploads.put(folder, artifact)
        except RecordError:
            raise
        except Exception as exc:  # noqa: BLE001 - every kind of store has errors of its own
            self._failures += 1
            wait = FIRST_BACK_OFF_SECONDS * 2.0 ** min(self._failures, 6)
            self._try_at = time.monotonic() + min(LONGEST_BACK_OFF_SECONDS, wait)
            reason = f"{type(exc).__name__}: {exc}"[:1000]
            logs.warn("store", "artifacts wait, the artifact store does not take them: %s", reason)
            return reason
        if self._failures:
            self._failures, self._try_at = 0, 0.0
        return None

    def _try_again(self, one: _Waiting) -> bool:
        """Whether it is done with, one way or the other."""
        where = f"WHERE producer_id = {self._writer.mark} AND seq = {self._writer.mark}"
        key = (one.producer_id, one.seq)
        with self._writer.transaction() as cursor:
            cursor.execute(f"SELECT record FROM llm_artifacts {where}", key)
            found = cursor.fetchone()
        if found is None:
            return True  # another sink was quicker
        artifact = decode(base64.b64decode(found[0]))
        assert isinstance(artifact, Artifact)
        change: tuple[str, tuple[Any, ...]]
        try:
            if one.folder is None:
                raise RecordError(f"there is no run {one.run_id} to keep it with")
            late = self._uploaded(one.folder, artifact)
            change = (f"DELETE FROM llm_artifacts {where}", ())
        except RecordError as exc:
            late = None
            logs.warn("store", "artifact %s is refused: %s", artifact.path, exc)
            change = (
                f"UPDATE llm_artifacts SET refused = {self._writer.mark},"
                f" reason = {self._writer.mark} {where}",
                (True, str(exc)),
            )
        if late is None:
            with self._writer.transaction() as cursor:
                cursor.execute(change[0], (*change[1], *key))
        return late is None

    def _oldest(self) -> list[_Waiting]:
        """The first that this sink may write: a collector's may be for that collector alone."""
        with self._writer.transaction() as cursor:
            cursor.execute(
                "SELECT a.producer_id, a.seq, a.run_id, r.artifact_uri FROM llm_artifacts a"
                " LEFT JOIN runs r ON r.run_uuid = a.run_id"
                f" WHERE a.refused = {self._writer.mark}"
                f" ORDER BY a.received_ms, a.producer_id, a.seq LIMIT {LOOKED_AT}",
                (False,),
            )
            waiting = [_Waiting(*row) for row in cursor]
        mine = (one for one in waiting if one.folder is None or self._may_write(one.folder))
        return list(islice(mine, AT_ONCE))

    def _values(
        self, cursor: Any, table: str, key: str, value: str, ids: Sequence[str]
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ", ".join([self._writer.mark] * len(some))
            cursor.execute(f"SELECT {key}, {value} FROM {table} WHERE {key} IN ({marks})", some)
            found.update((row[0], row[1]) for row in cursor)
        return found

    def _execute(self, into: Statements, files: list[FileLeaf]) -> None:
        with self._writer.transaction() as cursor:
            for rule, rows in into.rows.items():
                if rows:
                    cursor.executemany(insert_into(rule, self._writer.mark), rows)
            if written := into.told_apart():
                rows_of_records = chain.row_leaves(self._writer, cursor, written)
                note = {"files": files}
                chain.append(self._writer, cursor, "jobs", Leaves(rows=rows_of_records), note)


def _row(made: Piece, reason: str) -> tuple[Any, ...]:
    assert isinstance(made.record, Artifact)
    text = base64.b64encode(encode(made.record)).decode()
    return (*made.key, made.run_id, time.time_ns() // 1_000_000, False, reason, text)
