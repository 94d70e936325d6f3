"""Opening a database to read: the one place that connects, and translates what drivers raise."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from flowledger.config import without_password
from flowledger.errors import NotFound, QuestionError, StoreMisconfigured, StoreUnavailable
from flowledger.store.connections import Timeouts, limit_statements, tcp_options

__all__ = ["open_engine", "reading"]

CONNECT_SECONDS = 3
BUSY_SECONDS = 5.0
LEDGER = "llm_calls"


def open_engine(tracking_uri: str, statement_seconds: float) -> sa.Engine:
    """An engine that only reads; nothing is connected yet, except that a file must be there.

    Args:
        tracking_uri: of the database.
        statement_seconds: how long PostgreSQL may take for one statement.

    Raises:
        NotFound: there is no such SQLite file.
        StoreMisconfigured: the URI names no database that flowledger writes to.
    """
    kind = tracking_uri.partition(":")[0].partition("+")[0]
    try:
        if kind == "sqlite":
            return _refusing_nul(_sqlite(tracking_uri))
        if kind == "postgresql":
            timeouts = Timeouts(CONNECT_SECONDS, statement_seconds)
            return _refusing_nul(_postgresql(tracking_uri, timeouts))
    except ImportError as exc:
        raise StoreMisconfigured(
            f"{exc.name} is not installed: pip install 'flowledger[server,postgres]'"
        ) from exc
    raise StoreMisconfigured(
        f"{without_password(tracking_uri)} is no database, and questions are asked of one: look at "
        "the runs in MLflow's own pages, or set FLOWLEDGER_TRACKING_URI to the sqlite:/// or "
        "postgresql:// database behind it"
    )


@contextmanager
def reading(engine: sa.Engine, place: str) -> Iterator[sa.Connection]:
    """A connection for one question; whatever goes wrong is told in a sentence.

    Args:
        engine: made by `open_engine`.
        place: what the database is called in that sentence.

    Raises:
        NotFound: the database has no ledger yet.
        QuestionError: a value of the question holds NUL.
        StoreUnavailable: the database does not answer.
    """
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.SQLAlchemyError as exc:
        if not _has_ledger(engine, place):
            raise NotFound(nothing_stored(place)) from exc
        raise _unreadable(place, exc) from exc


def nothing_stored(place: str) -> str:
    """What to do when there is no ledger yet."""
    return (
        f"nothing is stored yet in {place}: record a call first (`flowledger demo` shows how), or "
        "set MLFLOW_TRACKING_URI to the database your application uses"
    )


def _sqlite(uri: str) -> sa.Engine:
    path = Path(sa.make_url(uri).database or ":memory:")
    if not path.is_file():
        raise NotFound(nothing_stored(f"{path}, which does not exist"))

    def connect() -> sqlite3.Connection:
        address = f"{path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)

    return sa.create_engine(uri, creator=connect)


def _postgresql(uri: str, timeouts: Timeouts) -> sa.Engine:
    url = sa.make_url(uri)
    arguments = tcp_options(timeouts)
    if url.get_dialect().driver == "psycopg":
        arguments["prepare_threshold"] = None  # PgBouncer changes connections between transactions
    engine = sa.create_engine(url, pool_pre_ping=True, connect_args=arguments)
    limit_statements(engine, timeouts)
    return engine.execution_options(postgresql_readonly=True)


def _refusing_nul(engine: sa.Engine) -> sa.Engine:
    """No text of a ledger holds NUL, and PostgreSQL's driver fails on one as on an outage."""
    sa.event.listen(engine, "before_cursor_execute", _refuse_nul)
    return engine


def _refuse_nul(connection: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
    values = parameters.values() if isinstance(parameters, dict) else parameters
    if any(isinstance(value, str) and "\0" in value for value in values):
        raise QuestionError("a value holds the NUL character, which no text of the ledger has")


def _has_ledger(engine: sa.Engine, place: str) -> bool:
    try:
        return sa.inspect(engine).has_table(LEDGER)
    except sa.exc.SQLAlchemyError as exc:
        raise _unreadable(place, exc) from exc


def _unreadable(place: str, exc: sa.exc.SQLAlchemyError) -> StoreUnavailable:
    text = str(exc).partition("\n")[0]
    return StoreUnavailable(f"{place} cannot be read: {text}")
