"""The bulk sink: a batch of calls in one transaction, straight into MLflow's tables and ours."""

import os
import random
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeAlias

import sqlalchemy as sa

from flowledger import logs
from flowledger.config import Destination
from flowledger.errors import FlowledgerError, RecordError, StoreMisconfigured, StoreUnavailable
from flowledger.records import Artifact, Call, Gap, Gone, Producer, decode, new_id, number_of
from flowledger.store import Refusal, chain
from flowledger.store.artifacts import Artifacts
from flowledger.store.backfill import repair
from flowledger.store.connections import Timeouts, without_prepared_statements
from flowledger.store.corrections import remove_rows, sum_again
from flowledger.store.derived import ledger_text
from flowledger.store.entries import DEFAULT_EXPERIMENT, Entry, entry
from flowledger.store.job_entries import Piece, piece
from flowledger.store.job_writing import end_jobs, experiments_of, write_pieces
from flowledger.store.leaves import KEPT, Leaves, leaves_of
from flowledger.store.new_sqlite import make_database
from flowledger.store.partitions import keep_ahead
from flowledger.store.rollup import add_calls
from flowledger.store.rollup_queue import queue_rebuilds
from flowledger.store.rows import COLUMNS, LEDGER, Experiment, gap_row, make_rows, producer_row
from flowledger.store.schema import migrate, refuse_unsupported
from flowledger.store.senders import FOREIGN, SHIPPER, Senders
from flowledger.store.signatures import FewVersions
from flowledger.store.writers import Writer, check_answers, open_writer

# Read when MLflow is imported: no telemetry from a collector, no job workers.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")

from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

__all__ = ["BulkSink", "open_bulk"]

# MLflow's own connections go through the same PgBouncer as ours.
sa.event.listen(sa.Engine, "do_connect", without_prepared_statements)

FOREIGN_KEY_VIOLATION = "23503"  # PostgreSQL's appendix A, in every language of its messages
FIRST_ANALYZE = 2_000
LONGEST_TEXT = 1_000
LONGEST_REASON = 200  # what a database says of a record may quote it
REPAIR_SECONDS = 60.0
MONTHS_SECONDS = 3600.0

_Errors: TypeAlias = tuple[type[Exception], ...]
_id = re.compile(r"[0-9a-f]{32}")


def open_bulk(
    destination: Destination,
    through: Callable[[Writer], Writer] = lambda writer: writer,
    artifact_roots: Sequence[str] = (),
) -> "BulkSink":
    """The bulk sink for a database, whose tables are made where there are none.

    Args:
        destination: the database and how calls are written to it.
        through: puts a writer of its own around the database's.
        artifact_roots: folders that artifacts may be in; empty allows any.

    Raises:
        StoreUnavailable: the database does not answer.
        StoreOutdated: its tables are of a newer flowledger, or of an unsupported MLflow.
        StoreMisconfigured: MLflow itself cannot use the database as it is.
    """
    try:
        with ExitStack() as undo:
            make_database(destination.tracking_uri, lambda uri: _make_tables(uri, destination))
            writer = open_writer(destination.tracking_uri, _timeouts(destination))
            undo.callback(writer.engine.dispose)
            check_answers(writer.engine)
            refuse_unsupported(writer.engine)
            # Makes MLflow's tables in PostgreSQL where there are none.
            store = SqlAlchemyStore(destination.tracking_uri, destination.artifact_root)
            refuse_unsupported(writer.engine)
            migrate(writer.engine)
            undo.pop_all()
    except MlflowException as exc:
        raise _of_mlflow(exc) from exc
    except (sa.exc.SQLAlchemyError, OSError) as exc:
        raise _of_database(exc) from exc
    return BulkSink(through(writer), store, destination.store_as, artifact_roots)


def _make_tables(uri: str, destination: Destination) -> None:
    """Make MLflow's tables in a new database; nothing of it stays open."""
    engine = SqlAlchemyStore(uri, destination.artifact_root).engine
    refuse_unsupported(engine)
    engine.dispose()


class BulkSink:
    """A `Sink` over a database that holds MLflow's tables and ours.

    Args:
        writer: the database.
        store: MLflow's own store on it, which makes experiments.
        store_as: what a call becomes in MLflow.
        artifact_roots: folders that artifacts may be in; empty allows any.
    """

    def __init__(
        self,
        writer: Writer,
        store: SqlAlchemyStore,
        store_as: str,
        artifact_roots: Sequence[str] = (),
    ) -> None:
        dbapi: Any = writer.engine.dialect.dbapi
        self._writer = writer
        self._store = store
        self._refusal: _Errors = (dbapi.IntegrityError, dbapi.DataError)
        self._outage: _Errors = (sa.exc.SQLAlchemyError, dbapi.Error, OSError)
        self._store_as = store_as
        self._artifacts = Artifacts(writer, artifact_roots)
        self._senders = Senders(writer)
        self._experiments: dict[str, Experiment] = {}
        self._versions = FewVersions()
        self._stored = 0
        self._analyze_at = FIRST_ANALYZE
        self._repair_at = 0.0
        self._months_at = 0.0

    batch_bytes = 2 << 20

    def write(
        self,
        payloads: Sequence[bytes],
        *,
        redelivered: bool = False,
        sender: str = SHIPPER,
    ) -> list[Refusal]:
        """Store a batch in one transaction; calls that are there already stay as they are.

        Args:
            payloads, redelivered: as a `Sink` takes them.
            sender: the user who delivers it, by name; records of another sender's process are
                refused.
        """
        refusals: list[Refusal] = []
        with self._told():
            foreign = self._senders.find_foreign(payloads, sender)
        batch = _Batch(payloads, refusals, self._versions, foreign)
        with self._told():
            self._find_experiments(_experiments_of(batch.entries))
            refused = self._write(batch.entries, batch.producers, batch.gaps) if payloads else []
            if refused and len(refused) == len(batch.entries):
                self._check_ordinary_calls(refused[0].reason)
            self._end_jobs(batch.gone)
            refused += self._deliver_artifacts(batch, {refusal.place for refusal in refused})
            self._keep_statistics_fresh(len(batch.entries))
            self._repair_now_and_then()
            self._make_months_now_and_then()
        refusals += refused
        # The numbers of another sender's process are not for this one to use up.
        self._note_refused(payloads, [one for one in refusals if one.place not in foreign])
        return refusals

    def _note_refused(self, payloads: Sequence[bytes], refusals: Sequence[Refusal]) -> None:
        """Keep which numbers were refused, so that evidence can tell them from lost ones."""
        now_ms = time.time_ns() // 1_000_000
        short = [one._replace(reason=one.reason[:LONGEST_REASON]) for one in refusals]
        keys = [(*number_of(payloads[one.place]), ledger_text(one.reason)) for one in short]
        rows = [(producer, seq, reason, now_ms) for producer, seq, reason in keys if producer]
        if rows:
            with self._told(), self._writer.transaction() as cursor:
                self._prove_rows(cursor, self._write_told(cursor, "llm_rejected", rows))

    def remove(self, ids: Sequence[str]) -> None:
        """Delete calls from MLflow's tables and ours; ids that are not there are passed over.

        Raises:
            StoreUnavailable: nothing was deleted.
        """
        with self._told(), self._writer.transaction() as cursor:
            sum_again(cursor, remove_rows(self._writer, cursor, ids))
            gone = Leaves([[]], [(bytes.fromhex(one), 0, b"") for one in ids])
            chain.append(self._writer, cursor, "removal", gone)

    def correct(self, call: Call) -> None:
        """Store a call in the place of the one with the same id, or anew.

        Raises:
            StoreUnavailable: it is not stored; what was there is left as it was.
        """
        corrected = entry(call)
        with self._told():
            self._find_experiments({corrected.experiment})
            rows = make_rows([corrected], self._experiments, self._store_as).by_table
            with self._writer.transaction() as cursor:
                days = remove_rows(self._writer, cursor, [call.id])
                self._insert(cursor, rows)
                queue_rebuilds(self._writer, cursor, [f"tr-{call.id}"])
                sum_again(cursor, days)
                chain.append(self._writer, cursor, "correction", leaves_of(rows))

    def close(self) -> None:
        """Close the connections."""
        self._writer.engine.dispose()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as exc:
            raise _of_mlflow(exc) from exc
        except self._outage as exc:
            self._experiments.clear()
            self._senders.forget()
            raise _of_database(exc) from exc

    def _deliver_artifacts(self, batch: "_Batch", refused: set[int]) -> list[Refusal]:
        """After the commit: the artifact store takes no part in our transaction."""
        delivered = self._artifacts.deliver(
            [(i, p) for i, p in batch.artifacts() if i not in refused]
        )
        self._artifacts.catch_up()
        return delivered

    def _write(
        self,
        entries: list[tuple[int, Entry | Piece]],
        producers: list[tuple[Any, ...]],
        gaps: list[tuple[Any, ...]],
    ) -> list[Refusal]:
        """One transaction; when a record spoils it, halves of it, down to that record."""
        try:
            self._write_rows([e for _, e in entries], producers, gaps)
        except Exception as exc:
            if not self._is_about_a_record(exc):
                raise
            if len(entries) <= 1:
                return [Refusal(index, self._reason(exc)) for index, _ in entries]
            middle = len(entries) // 2
            first = self._write(entries[:middle], producers, gaps)
            return [*first, *self._write(entries[middle:], [], [])]
        return []

    def _is_about_a_record(self, exc: Exception) -> bool:
        """Whether one record alone may bring this about; otherwise the store is at fault."""
        if isinstance(exc, self._refusal):
            return not _is_about_experiments(exc)
        at_fault = (*self._outage, FlowledgerError, MlflowException, MemoryError)
        return isinstance(exc, RecordError) or not isinstance(exc, at_fault)

    def _reason(self, exc: Exception) -> str:
        if isinstance(exc, self._refusal):
            return f"the database refuses it: {exc}"[:LONGEST_TEXT]
        logs.warn("store", "a record cannot be made into rows:\n%s", logs.stack_of(exc))
        return f"it cannot be made into rows: {type(exc).__name__}: {exc}"[:LONGEST_TEXT]

    def _write_rows(
        self,
        stored: list[Entry | Piece],
        producers: list[tuple[Any, ...]],
        gaps: list[tuple[Any, ...]],
    ) -> None:
        entries = new = [e for e in stored if isinstance(e, Entry)]
        pieces = [p for p in stored if isinstance(p, Piece)]
        rows = make_rows(entries, self._experiments, self._store_as).by_table
        ids = [e.call.id for e in entries]
        with self._writer.transaction() as cursor:
            known = self._writer.known(cursor, ids) if ids else set()
            if known:
                new = [e for e in entries if e.call.id not in known]
                rows = make_rows(new, self._experiments, self._store_as).by_table
            self._insert(cursor, rows)
            traced = "trace" in self._store_as
            written = write_pieces(
                self._writer, cursor, new, pieces, self._experiments, traces=traced
            )
            changed = [key[0] for table, key in written if table in ("trace_info", "spans")]
            traces = [f"tr-{e.call.id}" for e in new] if traced else []
            queue_rebuilds(self._writer, cursor, [*traces, *changed])
            for table, told in (("llm_producers", producers), ("llm_gaps", gaps)):
                written += self._write_told(cursor, table, told)
            if rows[LEDGER]:
                chain.append(self._writer, cursor, "batch", leaves_of(rows))
            self._prove_rows(cursor, written)

    def _prove_rows(self, cursor: Any, written: list[tuple[str, tuple[Any, ...]]]) -> None:
        """Add the leaves of single rows to the chain, the last thing of a transaction."""
        if written:
            leaves = chain.row_leaves(self._writer, cursor, written)
            chain.append(self._writer, cursor, "jobs", Leaves(rows=leaves))

    def _write_told(
        self, cursor: Any, table: str, told: list[tuple[Any, ...]]
    ) -> list[tuple[str, tuple[Any, ...]]]:
        """Write what is told of producers; returns those that were not told like that before."""
        if not told:
            return []
        kept = KEPT[table]
        places = [COLUMNS[table].index(name) for name in (kept.owner, *kept.keys)]
        keys = [(table, tuple([row[place] for place in places])) for row in told]
        before = set(chain.row_leaves(self._writer, cursor, keys))
        self._writer.upsert(cursor, table, told)
        changed = set(chain.row_leaves(self._writer, cursor, keys)) - before
        return [key for key in keys if any(leaf.is_of(key) for leaf in changed)]

    def _end_jobs(self, gone: list[Gone]) -> None:
        if gone:
            with self._writer.transaction() as cursor:
                ended = [row for one in gone for row in end_jobs(self._writer, cursor, one)]
                self._prove_rows(cursor, ended)

    def _insert(self, cursor: Any, rows: dict[str, list[tuple[Any, ...]]]) -> None:
        for table, some in rows.items():
            if some:
                self._writer.insert(cursor, table, some)
        if calls := rows[LEDGER]:
            ids = [row[0] for row in calls]
            add_calls(lambda statement: self._writer.among(cursor, statement, ids))

    def _check_ordinary_calls(self, reason: str) -> None:
        """Insert a call that nothing is wrong with, and take it back.

        A database that refuses that one, too, is at fault itself, and no record is.
        """
        self._find_experiments({DEFAULT_EXPERIMENT})
        name = next(iter(self._experiments))
        ordinary = entry(
            Call(id=new_id(), start_ns=time.time_ns(), experiment=name, prompt="?", response="!")
        )
        try:
            with self._writer.transaction() as cursor:
                self._insert(
                    cursor, make_rows([ordinary], self._experiments, self._store_as).by_table
                )
                raise _NotKept
        except _NotKept:
            return
        except Exception as exc:
            if not self._is_about_a_record(exc):
                raise
            raise StoreUnavailable(f"no record can be stored: {reason}") from exc

    def _find_experiments(self, names: set[str]) -> None:
        """Make the experiments that are missing and restore those that were deleted."""
        for name in names:
            if name not in self._experiments:
                self._experiments[name] = self._experiment(name)

    def _experiment(self, name: str) -> Experiment:
        found = self._store.get_experiment_by_name(name)
        if found is None:
            try:
                self._store.create_experiment(name)
            except MlflowException:
                found = self._store.get_experiment_by_name(name)
                if found is None:
                    raise
            found = self._store.get_experiment_by_name(name)
        if found.lifecycle_stage != "active":
            logs.warn("store", "experiment %s was deleted and is restored: calls go there", name)
            self._store.restore_experiment(found.experiment_id)
        return Experiment(int(found.experiment_id), found.artifact_location)

    def _keep_statistics_fresh(self, stored: int) -> None:
        """Analyze each time the number of calls has doubled."""
        self._stored += stored
        if self._stored >= self._analyze_at:
            self._analyze_at = self._stored * 2
            # Beside the batches, which would wait for seconds.
            threading.Thread(target=self._analyze, daemon=True).start()

    def _repair_now_and_then(self) -> None:
        """Add up what an older flowledger, which knew no sums, still stored beside this one."""
        if time.monotonic() < self._repair_at:
            return
        if summed := repair(self._writer.engine):
            logs.warn("store", "%d calls of an older flowledger were added to the sums", summed)
        else:
            self._repair_at = time.monotonic() + REPAIR_SECONDS

    def _make_months_now_and_then(self) -> None:
        """Where calls are kept by month, make those that are missing before they begin."""
        if time.monotonic() < self._months_at:
            return
        # Not all workers at once: who makes them keeps the others from storing for a moment.
        self._months_at = time.monotonic() + random.uniform(0.5, 1.5) * MONTHS_SECONDS
        try:
            keep_ahead(self._writer.engine)
        except (FlowledgerError, sa.exc.SQLAlchemyError) as exc:  # the default partition takes them
            logs.warn("store", "the months ahead cannot be made: %s", _first_line(exc))

    def _analyze(self) -> None:
        with suppress(sa.exc.SQLAlchemyError):
            self._writer.analyze()


class _NotKept(Exception):
    """Rolls a transaction back that only tried something."""


class _Batch:
    """A batch taken apart by kind; what cannot be stored is refused here."""

    def __init__(
        self,
        payloads: Sequence[bytes],
        refusals: list[Refusal],
        versions: FewVersions,
        foreign: set[int],
    ) -> None:
        self._versions = versions
        self.entries: list[tuple[int, Entry | Piece]] = []
        self.producers: list[tuple[Any, ...]] = []
        self.gaps: list[tuple[Any, ...]] = []
        self.gone: list[Gone] = []
        self._seen: set[str] = set()
        for index, payload in enumerate(payloads):
            try:
                if index in foreign:
                    raise RecordError(FOREIGN)
                self._take(index, payload)
            except RecordError as exc:
                refusals.append(Refusal(index, str(exc)))
            except Exception as exc:  # noqa: BLE001 - one odd record must not stop the others
                refusals.append(Refusal(index, f"{type(exc).__name__}: {exc}"))

    def artifacts(self) -> list[tuple[int, Piece]]:
        """The files among the records, by their places."""
        pieces = [(index, p) for index, p in self.entries if isinstance(p, Piece)]
        return [(index, p) for index, p in pieces if isinstance(p.record, Artifact)]

    def _take(self, index: int, payload: bytes) -> None:
        record = decode(payload)
        if not _id.fullmatch(record.id):
            raise RecordError("an id must be 32 characters of lower-case hex")
        if isinstance(record, Call):
            if record.id not in self._seen:
                self._seen.add(record.id)
                self.entries.append((index, entry(record, versions=self._versions)))
        elif isinstance(record, Producer):
            if record.id != record.producer:
                raise RecordError("a process describes itself alone: its id must be its producer's")
            self.producers.append(producer_row(record))
        elif isinstance(record, Gap):
            self.gaps.append(gap_row(record))
        elif isinstance(record, Gone):
            self.gone.append(record)
        else:
            self.entries.append((index, piece(record)))


def _experiments_of(entries: list[tuple[int, Entry | Piece]]) -> set[str]:
    calls = [e for _, e in entries if isinstance(e, Entry)]
    pieces = [p for _, p in entries if isinstance(p, Piece)]
    return {call.experiment for call in calls} | experiments_of(calls, pieces)


def _timeouts(destination: Destination) -> Timeouts:
    return Timeouts(destination.connect_seconds, destination.statement_seconds)


def _is_about_experiments(exc: Exception) -> bool:
    """A foreign key that fails is an experiment that is gone, not a bad record."""
    return (
        getattr(exc, "sqlstate", None) == FOREIGN_KEY_VIOLATION
        or getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
    )


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]


def _of_mlflow(exc: MlflowException) -> StoreUnavailable | StoreMisconfigured:
    if "TEMPORARILY" in str(exc.error_code):
        return StoreUnavailable(f"the database does not answer: {exc.message}")
    return StoreMisconfigured(f"MLflow cannot use the database: {exc.message}")


def _of_database(exc: Exception) -> StoreUnavailable:
    text = str(exc).partition("\n(Background")[0]
    return StoreUnavailable(f"the database does not take calls: {text}")
