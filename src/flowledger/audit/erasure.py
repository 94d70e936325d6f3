"""Retention and erasure: content gone for good, the counts and the chain still whole.

A portion of records a transaction, its link of the chain in it: killed in the middle, the same
command goes on where it was. What was done stands in `llm_erasures`.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from flowledger.audit import months
from flowledger.audit.archived import Archived, scrub_archive
from flowledger.audit.files import ArtifactFiles
from flowledger.audit.proof import open_proven
from flowledger.audit.scrubbing import Renaming, archived_around, scrub, without_texts
from flowledger.errors import StoreUnavailable
from flowledger.records import new_id
from flowledger.store import chain
from flowledger.store.connections import PATIENT
from flowledger.store.corrections import (
    remove_rows,
    sum_again,
    sum_owners_again,
    touched_days,
)
from flowledger.store.leaves import Leaves
from flowledger.store.partitions import Month
from flowledger.store.schema import migrate
from flowledger.store.writers import Writer, answering, open_writer

__all__ = ["Counted", "Erasure", "count", "erase", "purge", "records_of", "sessions_of"]

AT_ONCE = 500
USER = "erase"
AGE = "purge"
VACUUMED = (
    *("runs", "params", "metrics", "latest_metrics", "tags", "trace_info", "trace_tags"),
    *("trace_request_metadata", "spans", "assessments", "inputs", "input_tags"),
    *(
        "llm_calls",
        "llm_tags",
        "llm_facets",
        "llm_artifacts",
        "llm_erasures",
        "llm_erased",
        "llm_rejected",
        "llm_keys",
        "llm_producers",
        "llm_senders",
    ),
)
Progress = Callable[[int], None]


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is to take out."""

    calls: int
    jobs: int


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken out: `unreached` are folders of artifacts and archived traces that could not
    be deleted or changed, with the reasons.

    `named_after` are experiments whose names hold the user's id; rename them in MLflow.
    """

    id: str
    calls: int
    jobs: int
    artifacts: int
    unreached: dict[str, str]
    named_after: list[str]
    vacuumed: bool


def sessions_of(tracking_uri: str, user_id: str) -> list[str]:
    """The sessions of a user, which chats keep turns of.

    Raises:
        NotFound: nothing is stored there.
        StoreError: the database cannot be used.
    """
    with answering(), open_proven(tracking_uri) as (writer, cursor):
        query = f"SELECT DISTINCT session_id FROM llm_calls WHERE user_id = {writer.mark}"
        cursor.execute(query, (user_id,))
        return sorted(str(row[0]) for row in cursor.fetchall() if row[0])


def records_of(tracking_uri: str, user_id: str, ids: Iterable[str]) -> set[str]:
    """Which of these calls, jobs and lone spans are a user's.

    Raises:
        NotFound: nothing is stored there.
        StoreError: the database cannot be used.
    """
    wanted, found = sorted(ids), set[str]()
    with answering(), open_proven(tracking_uri) as (writer, cursor):
        theirs = _Wanted(writer, user_id, 0)
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            marks = ", ".join([writer.mark] * len(some))
            for query, values in (theirs.calls, theirs.jobs):
                cursor.execute(f"SELECT c.id {query} AND c.id IN ({marks})", (*values, *some))
                found |= {str(row[0]) for row in cursor.fetchall()}
    return found


def count(
    tracking_uri: str, *, user_id: str | None = None, before_ms: int = 0, everything: bool = False
) -> Counted:
    """How much `erase` or `purge` would take out; nothing is changed.

    Raises:
        NotFound: nothing is stored there.
        StoreError: the database cannot be used.
    """
    with answering(), open_proven(tracking_uri) as (writer, cursor):
        wanted = _Wanted(writer, user_id, before_ms, everything)
        return Counted(
            calls=wanted.count(cursor, wanted.calls), jobs=wanted.count(cursor, wanted.jobs)
        )


def erase(
    tracking_uri: str,
    user_id: str,
    *,
    by: str,
    reason: str,
    vacuum: bool = True,
    progress: Progress = lambda done: None,
) -> Erasure:
    """Take everything a user asked and was answered out of the record, and their name.

    Calls, tokens and costs stay counted, under a made-up name.

    Args:
        tracking_uri: the database.
        user_id: as the application gave it.
        by, reason: who does it and why, kept in the chain.
        vacuum: also overwrite what the database still holds in freed pages.
        progress: is told how many records are done.

    Raises:
        NotFound: nothing is stored there.
        StoreError: the database cannot be used; what is done stays done.
    """
    with _opened(tracking_uri) as writer:
        work = _Work(writer, USER, {"what": "a user"}, by, reason, subject=user_id)
        wanted = _Wanted(writer, user_id, 0)
        work.run(wanted, work.renaming(user_id), progress)
        return work.finish(vacuum, user_id)


def purge(
    tracking_uri: str,
    before_ms: int,
    *,
    by: str,
    reason: str,
    everything: bool = False,
    vacuum: bool = True,
    progress: Progress = lambda done: None,
) -> Erasure:
    """Take the content of all records that began before a time out of the record.

    Args:
        tracking_uri: the database.
        before_ms: Unix milliseconds.
        by, reason: who does it and why, kept in the chain.
        everything: delete the calls themselves, with what they count.
        vacuum, progress: as for `erase`.

    Raises:
        NotFound: nothing is stored there.
        StoreError: the database cannot be used; what is done stays done.
    """
    with _opened(tracking_uri) as writer:
        what = {"before_ms": before_ms, "everything": everything}
        work = _Work(writer, AGE, what, by, reason, subject=f"{everything}")
        wanted = _Wanted(writer, None, before_ms, everything)
        if everything:
            work.drop_months(wanted, before_ms, progress)
        work.run(wanted, None, progress)
        return work.finish(vacuum, None)


class _Wanted:
    """Which records are to go, as queries of their ids in order."""

    def __init__(
        self, writer: Writer, user_id: str | None, before_ms: int, everything: bool = False
    ) -> None:
        self.everything = everything
        mark = writer.mark
        gone = "EXISTS (SELECT 1 FROM llm_erased e WHERE e.record_id = {0})"
        if user_id is None:
            kept = "" if everything else f" AND NOT {gone.format('c.id')}"
            self.calls = (f"FROM llm_calls c WHERE c.start_ms < {int(before_ms)}{kept}", ())
            self.jobs: tuple[str, tuple[Any, ...]] = (
                "FROM llm_records c WHERE c.kind IN ('job', 'span')"
                f" AND c.received_ms < {int(before_ms)} AND NOT {gone.format('c.id')}"
                " AND (EXISTS (SELECT 1 FROM runs r WHERE r.run_uuid = c.id)"
                " OR EXISTS (SELECT 1 FROM trace_info t WHERE t.request_id = 'tr-' || c.id))",
                (),
            )
            return
        self.calls = (f"FROM llm_calls c WHERE c.user_id = {mark}", (user_id,))  # type: ignore[assignment]
        self.jobs = (
            "FROM (SELECT run_uuid AS id FROM tags WHERE key = 'user_id'"
            f" AND value = {mark} UNION SELECT substr(request_id, 4) AS id"
            f" FROM trace_request_metadata WHERE key = 'mlflow.trace.user' AND value = {mark}) c"
            " WHERE length(c.id) = 32 AND NOT EXISTS"
            " (SELECT 1 FROM llm_calls k WHERE k.id = c.id)",
            (user_id, user_id),
        )

    def count(self, cursor: Any, query: tuple[str, tuple[Any, ...]]) -> int:
        """How many they are."""
        cursor.execute(f"SELECT count(DISTINCT c.id) {query[0]}", query[1])
        return int(cursor.fetchone()[0])

    def portion(self, cursor: Any, query: tuple[str, tuple[Any, ...]], after: str) -> list[str]:
        """The next ids after one."""
        where = query[0] + f" AND c.id > '{after}'"
        cursor.execute(f"SELECT DISTINCT c.id {where} ORDER BY c.id LIMIT {AT_ONCE}", query[1])
        return [str(row[0]) for row in cursor.fetchall()]


class _Work:
    """One erasure under way, begun anew or gone on with."""

    def __init__(
        self, writer: Writer, kind: str, what: dict[str, Any], by: str, reason: str, subject: str
    ) -> None:
        self._writer = writer
        self._kind = kind
        self._files = ArtifactFiles()
        self._done = 0
        with writer.transaction() as cursor:
            self.id, self._salt = self._begun(cursor, kind, subject) or self._begin(
                cursor, kind, what, by, reason, subject
            )
        self._note = {"erasure": self.id, "by": by, "reason": reason, **what}

    def renaming(self, user_id: str) -> Renaming:
        """Names that are the same throughout this erasure and mean nothing outside of it."""

        def named(kind: str, name: str) -> str:
            digest = hmac.new(self._salt.encode(), f"{kind}:{name}".encode(), hashlib.sha256)
            return f"erased-{digest.hexdigest()[:12]}"

        return Renaming(user_id, named("user", user_id), lambda name: named("session", name))

    def run(self, wanted: _Wanted, renaming: Renaming | None, progress: Progress) -> None:
        """Take records out, a portion a transaction, until none is left."""
        for name, query in (("calls", wanted.calls), ("jobs", wanted.jobs)):
            self._run(wanted, name, query, renaming, progress)
        if renaming is not None:
            self._end_of_user(wanted, renaming)

    def drop_months(self, wanted: _Wanted, before_ms: int, progress: Progress) -> None:
        """Take whole months out at once, where calls are kept by month."""
        for month in months.droppable(self._writer, before_ms):
            self._run(wanted, "calls", (months.more_than_a_row(month), ()), None, progress)
            self._done += self._drop(month, before_ms)
            progress(self._done)

    def finish(self, vacuum: bool, user_id: str | None) -> Erasure:
        """Say that it is done, forget who it was about, and overwrite what is free."""
        mark = self._writer.mark
        with self._writer.transaction() as cursor:
            cursor.execute(
                f"UPDATE llm_erasures SET ended_ms = {mark}, subject = '', salt = '',"
                f" artifacts = {mark} WHERE id = {mark}",
                (_now_ms(), self._files.deleted, self.id),
            )
            cursor.execute(f"SELECT calls, jobs FROM llm_erasures WHERE id = {mark}", (self.id,))
            calls, jobs = cursor.fetchone()
            named_after = []
            if user_id is not None:
                cursor.execute("SELECT name FROM experiments")
                named_after = [str(row[0]) for row in cursor.fetchall() if user_id in str(row[0])]
        vacuumed = vacuum and _vacuum(self._writer)
        return Erasure(
            id=self.id,
            calls=int(calls),
            jobs=int(jobs),
            artifacts=self._files.deleted,
            unreached=self._files.unreached,
            named_after=named_after,
            vacuumed=vacuumed,
        )

    def _run(
        self,
        wanted: _Wanted,
        name: str,
        query: tuple[str, tuple[Any, ...]],
        renaming: Renaming | None,
        progress: Progress,
    ) -> None:
        after = ""
        while ids := self._portion(wanted, query, after, renaming):
            self._take_out(name, ids, renaming, wanted.everything)
            after = ids[-1]
            self._done += len(ids)
            progress(self._done)

    def _drop(self, month: Month, before_ms: int) -> int:
        """Drop a month, and return how many calls it had; what keeps it there goes row by row."""
        writer, mark = self._writer, self._writer.mark
        with writer.transaction() as cursor:
            leaves = months.drop(cursor, month, before_ms)
            if leaves is None:
                return 0
            cursor.execute(
                f"UPDATE llm_erasures SET calls = calls + {mark} WHERE id = {mark}",
                (leaves.size, self.id),
            )
            if leaves.size:
                note = {**self._note, "month": str(month)}
                chain.append(writer, cursor, "purge", leaves, note)
        return leaves.size

    def _portion(
        self,
        wanted: _Wanted,
        query: tuple[str, tuple[Any, ...]],
        after: str,
        renaming: Renaming | None,
    ) -> list[str]:
        with self._writer.transaction() as cursor:
            ids = wanted.portion(cursor, query, after)
            if not ids:
                return []
            folders = self._folders(cursor, ids)
            own = Archived(self._writer, cursor, [f"tr-{one}" for one in ids]).locations
            around = archived_around(self._writer, cursor, ids)
        # Before the rows, which say where they are.
        self._files.delete(folders)
        self._files.delete(list(own.values()), is_there=True)
        for uri, spans in around.items():
            with self._files.reaching(uri):
                scrub_archive(uri, spans, lambda text: without_texts(text, renaming))
        return ids

    def _folders(self, cursor: Any, ids: Sequence[str]) -> list[str]:
        self._writer.among(
            cursor, "SELECT artifact_uri FROM runs WHERE run_uuid IN ({ids})", list(ids)
        )
        found = [str(row[0]) for row in cursor.fetchall() if row[0]]
        self._writer.among(
            cursor,
            "SELECT value FROM trace_tags WHERE key = 'mlflow.artifactLocation'"
            " AND request_id IN ({ids})",
            [f"tr-{one}" for one in ids],
        )
        return found + [str(row[0]) for row in cursor.fetchall() if row[0]]

    def _take_out(
        self, name: str, ids: Sequence[str], renaming: Renaming | None, everything: bool
    ) -> None:
        writer, mark = self._writer, self._writer.mark
        with writer.transaction() as cursor:
            _overwrite_freed(writer, cursor)
            if everything and name == "calls":
                shown = scrub(writer, cursor, ids, None).rows  # in the trace of a job around them
                sum_again(cursor, remove_rows(writer, cursor, ids))
                leaves = Leaves([[]], [(bytes.fromhex(one), 0, b"") for one in ids], shown)
            else:
                days = set() if renaming is None else touched_days(writer, cursor, ids)
                leaves = scrub(writer, cursor, ids, renaming)
                sum_owners_again(cursor, days)
                cursor.executemany(
                    f"INSERT INTO llm_erased (record_id, erasure_id) VALUES ({mark}, {mark})"
                    " ON CONFLICT (record_id) DO NOTHING",
                    [(one, self.id) for one in ids],
                )
            cursor.execute(
                f"UPDATE llm_erasures SET {name} = {name} + {mark} WHERE id = {mark}",
                (len(ids), self.id),
            )
            kind = "erasure" if self._kind == USER else "purge"
            chain.append(writer, cursor, kind, leaves, self._note)

    def _end_of_user(self, wanted: _Wanted, renaming: Renaming) -> None:
        """See that no call has the old name, and take it from where it is no call's."""
        with self._writer.transaction() as cursor:
            self._writer.lock(cursor)
            if wanted.portion(cursor, wanted.calls, ""):
                raise StoreUnavailable("that user goes on calling: stop them, and run this again")
            # What a database said of a record may quote it.
            cursor.execute("UPDATE llm_rejected SET reason = 'cleared by an erasure'")
            self._rename(cursor, "llm_keys", "name", renaming)
            self._rename(cursor, "llm_senders", "user_name", renaming)
            if processes := self._rename(cursor, "llm_producers", "os_user", renaming):
                written = [("llm_producers", (one,)) for one in processes]
                leaves = Leaves(rows=chain.row_leaves(self._writer, cursor, written))
                chain.append(self._writer, cursor, "erasure", leaves, self._note)

    def _rename(self, cursor: Any, table: str, column: str, renaming: Renaming) -> list[str]:
        """Put the made-up name into rows that hold the user's; their ids."""
        mark = self._writer.mark
        cursor.execute(f"SELECT id, {column} FROM {table}")
        there = [(str(one), str(name), renaming.of_text(str(name))) for one, name in cursor]
        changed = [(new, one) for one, name, new in there if new != name]
        if changed:
            statement = f"UPDATE {table} SET {column} = {mark} WHERE id = {mark}"
            cursor.executemany(statement, changed)
        return [one for _, one in changed]

    def _begun(self, cursor: Any, kind: str, subject: str) -> tuple[str, str] | None:
        cursor.execute(
            "SELECT id, salt, subject FROM llm_erasures WHERE ended_ms IS NULL"
            f" AND kind = {self._writer.mark}",
            (kind,),
        )
        for erasure_id, salt, kept in cursor.fetchall():
            if hmac.compare_digest(kept, _subject(salt, subject)):
                return str(erasure_id), str(salt)
        return None

    def _begin(
        self, cursor: Any, kind: str, what: dict[str, Any], by: str, reason: str, subject: str
    ) -> tuple[str, str]:
        erasure_id, salt = new_id(), secrets.token_hex(16)
        marks = ", ".join([self._writer.mark] * 11)
        cursor.execute(
            "INSERT INTO llm_erasures (id, kind, what, subject, salt, done_by, reason, begun_ms,"
            f" calls, jobs, artifacts) VALUES ({marks})",
            (
                *(erasure_id, kind, msgspec.json.encode(what).decode(), _subject(salt, subject)),
                *(salt, by, reason, _now_ms(), 0, 0, 0),
            ),
        )
        return erasure_id, salt


def _subject(salt: str, subject: str) -> str:
    return hashlib.sha256(f"{salt}:{subject}".encode()).hexdigest()


@contextmanager
def _opened(tracking_uri: str) -> Iterator[Writer]:
    with answering(), open_proven(tracking_uri):
        pass  # says in a sentence what is wrong with it
    writer = open_writer(tracking_uri, PATIENT)
    try:
        with answering():
            migrate(writer.engine)
        yield writer
    except writer.engine.dialect.dbapi.Error as exc:  # type: ignore[union-attr]
        reason = str(exc).partition("\n")[0]
        raise StoreUnavailable(f"the database broke off, run it again: {reason}") from exc
    finally:
        writer.engine.dispose()


def _overwrite_freed(writer: Writer, cursor: Any) -> None:
    if writer.mark == "?":
        cursor.execute("PRAGMA secure_delete = ON")


def _vacuum(writer: Writer) -> bool:
    """Give back every page that still holds what was deleted, and the statistics drawn from it.

    Returns:
        Whether it could be done: SQLite's log stays as it is while somebody reads from it.
    """
    with writer.engine.connect() as plain:
        connection = plain.execution_options(isolation_level="AUTOCOMMIT")
        if writer.mark == "?":
            connection.exec_driver_sql("ANALYZE")
            connection.exec_driver_sql("VACUUM")
            return not connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
        for table in VACUUMED:
            connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {table}")
        # Its samples of what was there; skipped with a warning by whoever may not.
        connection.exec_driver_sql("VACUUM (FULL) pg_statistic")
    return True


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
