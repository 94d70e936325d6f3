"""How rows get into a database: `executemany` on SQLite, `COPY` on PostgreSQL."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from flowledger.errors import StoreUnavailable
from flowledger.store.connections import UNLIMITED, USUAL, Timeouts, limit_statements, tcp_options
from flowledger.store.rows import COLUMNS, LEDGER
from flowledger.store.schema import (
    ADVISORY_LOCK,
    REVISION,
    UNKNOWN_STEP,
    refuse_revision,
    refuse_unknown,
)

__all__ = ["PostgresWriter", "SqliteWriter", "Writer", "answering", "check_answers", "open_writer"]

BUSY_SECONDS = 20
# Who changes the tables waits for transactions under way, and nobody begins one meanwhile.
BEGINNING = "SELECT set_config('statement_timeout', %s, true), pg_try_advisory_xact_lock_shared(%s)"
STATEMENT_VALUES = 999  # what SQLite has always taken in one statement
# A transaction in WAL mode with synchronous=FULL is on the disk when it returns: journals may go.
SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA cache_size=-65536",
    "PRAGMA temp_store=MEMORY",
)
UPSERTS = {
    "llm_rejected": "ON CONFLICT (producer_id, seq) DO NOTHING",
    "llm_producers": "ON CONFLICT (id) DO NOTHING",
    "llm_gaps": "ON CONFLICT (producer_id, first_seq) DO UPDATE"
    " SET last_seq = excluded.last_seq, dropped = excluded.dropped, seen_ms = excluded.seen_ms",
}
ANALYZED = (
    "runs",
    "params",
    "metrics",
    "latest_metrics",
    "tags",
    "trace_info",
    "trace_tags",
    "trace_request_metadata",
    "spans",
    LEDGER,
    "llm_tags",
    "llm_groups",
    "llm_rollup",
    "llm_latencies",
    "llm_facets",
)


class Writer(Protocol):
    """One database, written by one thread."""

    engine: sa.Engine
    mark: str
    """What stands for a value in this database's statements."""

    def transaction(self) -> Any:
        """A context manager around one transaction: gives a cursor, commits or rolls back.

        Raises:
            StoreOutdated: the tables are of a newer flowledger, beside which this one must not
                write, or of an MLflow this one does not support.
        """
        ...

    def known(self, cursor: Any, ids: Sequence[str]) -> set[str]:
        """Which of these calls the ledger has already."""
        ...

    def insert(self, cursor: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert new rows."""
        ...

    def upsert(self, cursor: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows that may be there already."""
        ...

    def among(self, cursor: Any, statement: str, ids: Sequence[str]) -> None:
        """Run a statement in which `{ids}` stands for a query of these ids."""
        ...

    def lock(self, cursor: Any) -> None:
        """Let nobody else store calls until the transaction ends."""
        ...

    def analyze(self) -> None:
        """Refresh the planner's statistics, without which MLflow's searches take minutes."""
        ...


class SqliteWriter:
    """Writes to a SQLite file."""

    mark = "?"

    def __init__(self, uri: str) -> None:
        self._path = Path(sa.make_url(uri).database or ":memory:")
        self._opened: tuple[int, int] | None = None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.engine = sa.create_engine(uri, connect_args={"timeout": BUSY_SECONDS})
        sa.event.listen(self.engine, "connect", _prepare_sqlite)

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """One transaction that takes the write lock at its start."""
        self._check_the_file_is_still_there()
        yield from _transaction(self.engine, self._begin)

    def _begin(self, cursor: Any) -> None:
        cursor.execute("BEGIN IMMEDIATE")
        _check_version(cursor)

    def _check_the_file_is_still_there(self) -> None:
        """SQLite goes on writing happily to a file that was deleted or replaced meanwhile."""
        try:
            found = self._path.stat()
        except FileNotFoundError as exc:
            raise StoreUnavailable(f"{self._path} was deleted") from exc
        identity = (found.st_dev, found.st_ino)
        if self._opened is None:
            self._opened = identity
        if self._opened != identity:
            raise StoreUnavailable(f"{self._path} was replaced by another file")

    def known(self, cursor: Any, ids: Sequence[str]) -> set[str]:
        """Which of these calls the ledger has already."""
        found: set[str] = set()
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ",".join("?" * len(some))
            cursor.execute(f"SELECT id FROM llm_calls WHERE id IN ({marks})", some)
            found.update(row[0] for row in cursor)
        return found

    def insert(self, cursor: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert new rows, many to a statement, which saves a quarter of the time."""
        width = STATEMENT_VALUES // len(COLUMNS[table])
        whole = len(rows) - len(rows) % width
        many = (tuple(chain.from_iterable(rows[i : i + width])) for i in range(0, whole, width))
        cursor.executemany(_insert(table, "?", width), many)
        cursor.executemany(_insert(table, "?"), rows[whole:])

    def upsert(self, cursor: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows that may be there already."""
        cursor.executemany(f"{_insert(table, '?')} {UPSERTS[table]}", rows)

    def among(self, cursor: Any, statement: str, ids: Sequence[str]) -> None:
        """Run a statement in which `{ids}` stands for a query of these ids."""
        among = statement.replace("{ids}", "SELECT value FROM json_each(?)")
        cursor.execute(among, (json.dumps(ids),))

    def lock(self, cursor: Any) -> None:
        """Nothing to do: a transaction here holds the write lock from its start."""

    def analyze(self) -> None:
        """Refresh the planner's statistics from a sample of each index."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA analysis_limit=1000")
            connection.exec_driver_sql("ANALYZE")


class PostgresWriter:
    """Writes to a PostgreSQL database with psycopg 3."""

    mark = "%s"

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        # PgBouncer in transaction mode gives each transaction another server connection, where a
        # prepared statement of the last one is not known.
        arguments = {**tcp_options(timeouts), "prepare_threshold": None}
        self.engine = sa.create_engine(uri, pool_pre_ping=True, connect_args=arguments)
        limit_statements(self.engine, timeouts)
        self._statement_ms = str(timeouts.statement_ms)

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """One transaction; psycopg opens it with the first statement."""
        yield from _transaction(self.engine, self._begin)

    def _begin(self, cursor: Any) -> None:
        """Of this transaction alone, so that it also holds behind PgBouncer."""
        cursor.execute(BEGINNING, (self._statement_ms, ADVISORY_LOCK))
        if not cursor.fetchone()[1]:
            raise StoreUnavailable("the tables are being changed: calls wait until that is done")
        _check_version(cursor)

    def known(self, cursor: Any, ids: Sequence[str]) -> set[str]:
        """Which of these calls the ledger has already."""
        cursor.execute("SELECT id FROM llm_calls WHERE id = ANY(%s)", (list(ids),))
        return {row[0] for row in cursor}

    def insert(self, cursor: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert new rows."""
        with cursor.copy(f"COPY {table} ({', '.join(COLUMNS[table])}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def upsert(self, cursor: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows that may be there already."""
        cursor.executemany(f"{_insert(table, '%s')} {UPSERTS[table]}", rows)

    def among(self, cursor: Any, statement: str, ids: Sequence[str]) -> None:
        """Run a statement in which `{ids}` stands for a query of these ids."""
        cursor.execute(statement.replace("{ids}", "SELECT unnest(%s::text[])"), (list(ids),))

    def lock(self, cursor: Any) -> None:
        """Let nobody else store calls until the transaction ends."""
        cursor.execute("LOCK TABLE llm_calls IN SHARE ROW EXCLUSIVE MODE")

    def analyze(self) -> None:
        """Refresh the planner's statistics; autovacuum keeps them fresh afterwards."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql(UNLIMITED)
            connection.exec_driver_sql(f"ANALYZE {', '.join(ANALYZED)}")
            connection.commit()


def open_writer(uri: str, timeouts: Timeouts = USUAL) -> Writer:
    """The writer for a database URI; `timeouts` are PostgreSQL's."""
    return SqliteWriter(uri) if uri.startswith("sqlite") else PostgresWriter(uri, timeouts)


@contextmanager
def answering() -> Iterator[None]:
    """Tells what a driver raises as `StoreUnavailable`, without the query."""
    try:
        yield
    except sa.exc.SQLAlchemyError as exc:
        reason = str(getattr(exc, "orig", None) or exc).partition("\n")[0]
        raise StoreUnavailable(f"the database does not answer: {reason}") from exc


def check_answers(engine: sa.Engine) -> None:
    """Ask for nothing, before MLflow's own store does: that one goes on asking for minutes.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    with answering(), engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")


def _check_version(cursor: Any) -> None:
    cursor.execute(f"SELECT ({UNKNOWN_STEP}), ({REVISION})")
    step, revision = cursor.fetchone()
    refuse_unknown(step)
    refuse_revision(revision)


def _transaction(engine: sa.Engine, begin: Callable[[Any], Any]) -> Iterator[Any]:
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        begin(cursor)
        yield cursor
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    finally:
        connection.close()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say so
    for pragma in SQLITE_PRAGMAS:
        connection.execute(pragma)


@cache
def _insert(table: str, mark: str, rows: int = 1) -> str:
    columns = COLUMNS[table]
    marks = f"({', '.join([mark] * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([marks] * rows)}"
