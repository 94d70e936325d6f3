"""Our own tables beside MLflow's, kept up to date by numbered migrations, each with a way back."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import sqlalchemy as sa

from flowledger.errors import NotFound, StoreMisconfigured, StoreOutdated
from flowledger.store.backfill import sum_missing
from flowledger.store.chain import begin_chain
from flowledger.store.connections import UNLIMITED

__all__ = [
    "ADVISORY_LOCK",
    "REVISION",
    "TESTED_REVISIONS",
    "UNKNOWN_STEP",
    "Migration",
    "applied",
    "changing",
    "migrate",
    "migrate_back",
    "migrations",
    "refuse_revision",
    "refuse_unknown",
    "refuse_unsupported",
    "why_unsupported",
]

# Alembic revisions of MLflow's schema that the differential test has run against; calls are written
# to no other, since runs without ledger rows would be missing from every sum.
TESTED_REVISIONS = {"dc11669786a5": "MLflow 3.17.2"}
# Held alone by who changes the tables, and shared by who writes to them.
ADVISORY_LOCK = 0x666C6F776C656467
BREAKING = "-- Breaking:"
VERSIONS = "llm_schema"
INSUFFICIENT_PRIVILEGE = "42501"  # PostgreSQL's code for it
WRITERS_ARE_TOLD = 8  # the migration since which a step can be marked as breaking
# The newest step that keeps out writers which do not know it.
UNKNOWN_STEP = f"SELECT max(version) FROM {VERSIONS} WHERE breaking"
REVISION = "SELECT version_num FROM alembic_version"  # of MLflow's tables
HALF_MADE = (
    "There are no runs in it: if MLflow was stopped while it made the tables, move the file away,"
    " and the next start makes it anew"
)
# What only SQLite is told, and what is a comment to others.
_of_sqlite = re.compile(r"/\* SQLite: (.*?) \*/")


# What a migration has to do that SQL alone cannot.
THEN: dict[int, Callable[[sa.Connection], object]] = {4: sum_missing, 6: begin_chain}


class Migration(NamedTuple):
    """One step of the schema: its number, its name, its statements and those of its way back.

    `loss` says what the way back loses. Writers that do not know a `breaking` step must not write
    once it is there.
    """

    number: int
    name: str
    statements: list[str]
    back: list[str]
    loss: str
    breaking: bool


@cache
def migrations() -> tuple[Migration, ...]:
    """Every migration, in order."""
    folder = files(__package__) / "migrations"
    scripts = {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.is_file()}
    return tuple(
        _migration(name.removesuffix(".sql"), scripts)
        for name in sorted(scripts)
        if name.endswith(".sql") and not name.endswith(".down.sql")
    )


def migrate(engine: sa.Engine, to: int | None = None) -> list[int]:
    """Bring our tables up to date; returns the steps that were taken, in order.

    Processes may do so at the same time: one does the work, the others wait for it. Where nothing
    is to be done nothing is locked, and no right to change tables is needed.

    Args:
        engine: the database; MLflow's tables are in it.
        to: the last step to take; all by default.

    Raises:
        StoreOutdated: the tables are of a newer flowledger, beside which this one must not write.
        StoreMisconfigured: this user may not change tables.
    """
    if not _missing(engine, to):
        return []
    with changing(engine) as connection:
        _make_versions(connection)
        taken = [m for m in migrations() if m.number in _missing_in(connection, to)]
        for migration in taken:
            _apply(connection, migration)
    return [migration.number for migration in taken]


def migrate_back(engine: sa.Engine, to: int) -> list[int]:
    """Take back every step after `to`; returns them in the order they were taken back.

    Nobody may write meanwhile: a newer flowledger that does goes forward again.

    Args:
        engine: the database.
        to: the last step that stays; 0 leaves MLflow's tables alone.

    Raises:
        NotFound: a step was made by a newer flowledger, which knows the way back.
        StoreMisconfigured: this user may not change tables.
    """
    known = {migration.number: migration for migration in migrations()}
    with changing(engine) as connection:
        taken = sorted((n for n in _applied_in(connection) if n > to), reverse=True)
        if unknown := [n for n in taken if n not in known]:
            raise NotFound(
                f"step {unknown[0]} was made by a newer flowledger: take it back with that one"
            )
        for number in taken:
            _execute(connection, known[number].back)
            connection.exec_driver_sql(f"DELETE FROM {VERSIONS} WHERE version = {number}")
    return taken


def applied(engine: sa.Engine) -> dict[int, int]:
    """The steps that were taken, with their times in Unix milliseconds."""
    with engine.connect() as connection:
        return _applied_in(connection)


def refuse_unknown(breaking_step: int | None) -> None:
    """Keep from writing to tables that a newer flowledger changed in a way this one cannot follow.

    Args:
        breaking_step: what `UNKNOWN_STEP` gives.

    Raises:
        StoreOutdated: it is one that this flowledger does not know.
    """
    newest = migrations()[-1].number
    if breaking_step is not None and breaking_step > newest:
        raise StoreOutdated(
            f"the tables are of a newer flowledger (step {breaking_step}, this one knows {newest}):"
            " calls wait until this process is replaced by a newer one"
        )


def refuse_unsupported(engine: sa.Engine) -> None:
    """Keep from writing to MLflow's tables where they are of a revision that was never tested.

    Raises:
        StoreOutdated: they are, or an MLflow that was stopped left them half made.
    """
    with engine.connect() as connection:
        if reason := why_unsupported(connection):
            raise StoreOutdated(reason)


def refuse_revision(revision: str | None) -> None:
    """Keep from writing once another MLflow has upgraded its tables.

    Args:
        revision: what `REVISION` gives.

    Raises:
        StoreOutdated: it was never tested.
    """
    if revision not in TESTED_REVISIONS:
        raise StoreOutdated(_unsupported(revision))


def why_unsupported(connection: sa.Connection) -> str | None:
    """Return why calls are not written to these tables of MLflow's, and what to do about it.

    None where they are supported, or where MLflow can still make them.
    """
    tables = set(sa.inspect(connection).get_table_names())
    there = "alembic_version" in tables
    revision = connection.exec_driver_sql(REVISION).scalar() if there else None
    sqlite = connection.dialect.name == "sqlite"
    # Without a revision MLflow makes its tables, which on SQLite fails once some of them are there.
    half_made = sqlite and "runs" in tables
    if revision in TESTED_REVISIONS or (revision is None and not half_made):
        return None
    empty = sqlite and not _has_runs(connection, tables)
    return _unsupported(revision) + (f". {HALF_MADE}" if empty else "")


def _unsupported(revision: str | None) -> str:
    supported = ", ".join(f"{one} of {name}" for one, name in TESTED_REVISIONS.items())
    return (
        f"the database is at MLflow revision {revision or 'none'}, and this flowledger supports"
        f" {supported}: calls wait. If its MLflow is older, back it up and run `mlflow db upgrade`;"
        " if it is newer, upgrade flowledger"
    )


def _has_runs(connection: sa.Connection, tables: set[str]) -> bool:
    return any(
        connection.exec_driver_sql(f"SELECT 1 FROM {table} LIMIT 1").first()
        for table in ("runs", "trace_info")
        if table in tables
    )


def _migration(stem: str, scripts: dict[str, str]) -> Migration:
    number, _, name = stem.partition("_")
    script, back = scripts[f"{stem}.sql"], scripts.get(f"{stem}.down.sql", "")
    head = [line.removeprefix("-- ") for line in back.partition("\n\n")[0].splitlines()]
    return Migration(
        number=int(number),
        name=name,
        statements=_statements(script),
        back=_statements(back),
        loss=" ".join(head),
        breaking=script.startswith(BREAKING),
    )


@contextmanager
def changing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that nobody else changes tables or stores calls beside."""
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql(UNLIMITED)
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
            yield connection
            connection.commit()
    except sa.exc.ProgrammingError as exc:
        if getattr(exc.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
            raise
        raise StoreMisconfigured(
            "the tables must be changed, and this user may not: run `flowledger migrate` as their "
            "owner"
        ) from exc


def _missing(engine: sa.Engine, to: int | None) -> set[int]:
    with engine.connect() as connection:
        return _missing_in(connection, to)


def _missing_in(connection: sa.Connection, to: int | None) -> set[int]:
    there = _applied_in(connection)
    if WRITERS_ARE_TOLD in there:
        refuse_unknown(connection.exec_driver_sql(UNKNOWN_STEP).scalar())
    return {m.number for m in migrations() if m.number not in there and (not to or m.number <= to)}


def _applied_in(connection: sa.Connection) -> dict[int, int]:
    if not sa.inspect(connection).has_table(VERSIONS):
        return {}
    found = connection.exec_driver_sql(f"SELECT version, applied_ms FROM {VERSIONS}")
    return {int(version): int(applied_ms) for version, applied_ms in found}


def _make_versions(connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        f"CREATE TABLE IF NOT EXISTS {VERSIONS}"
        " (version INTEGER NOT NULL PRIMARY KEY, applied_ms BIGINT NOT NULL)"
    )


def _apply(connection: sa.Connection, migration: Migration) -> None:
    _execute(connection, migration.statements)
    if migration.number in THEN:
        THEN[migration.number](connection)
    now_ms = time.time_ns() // 1_000_000
    connection.exec_driver_sql(
        f"INSERT INTO {VERSIONS} (version, applied_ms) VALUES ({migration.number}, {now_ms})"
    )
    if migration.breaking:
        connection.exec_driver_sql(
            f"UPDATE {VERSIONS} SET breaking = TRUE WHERE version = {migration.number}"
        )


def _execute(connection: sa.Connection, statements: list[str]) -> None:
    for statement in statements:
        if connection.dialect.name == "sqlite":
            statement = _of_sqlite.sub(r"\1", statement)
        connection.exec_driver_sql(statement)


def _statements(script: str) -> list[str]:
    lines = (line for line in script.splitlines() if not line.lstrip().startswith("--"))
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" ;\n")]
