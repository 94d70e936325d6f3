"""Our own tables beside MLflow's, kept up to date by numbered migrations."""

import re
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import NamedTuple

import sqlalchemy as sa

from flowledger.store.backfill import roll_up_all
from flowledger.store.chain import begin_chain

__all__ = ["TESTED_REVISIONS", "Migration", "migrate", "migrations"]

# Alembic revisions of MLflow's schema that the differential test has run against.
TESTED_REVISIONS = {"dc11669786a5": "MLflow 3.17.2"}
ADVISORY_LOCK = 0x666C6F776C656467
# What only SQLite is told, and what is a comment to others.
_of_sqlite = re.compile(r"/\* SQLite: (.*?) \*/")


# What a migration has to do that SQL alone cannot.
THEN: dict[int, Callable[[sa.Connection], None]] = {4: roll_up_all, 6: begin_chain}


class Migration(NamedTuple):
    """One step of the schema: its number, its name and its statements."""

    number: int
    name: str
    statements: list[str]


def migrations() -> Iterator[Migration]:
    """Every migration, in order."""
    folder = files(__package__) / "migrations"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        number, _, name = file.name.removesuffix(".sql").partition("_")
        if file.name.endswith(".sql"):
            yield Migration(int(number), name, _statements(file.read_text("utf-8")))


def migrate(engine: sa.Engine) -> int:
    """Bring our tables up to date; returns the version they then have.

    Processes may do so at the same time: one does the work, the others wait for it.
    """
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        version = _version(connection)
        for migration in migrations():
            if migration.number > version:
                _apply(connection, migration)
                version = migration.number
        connection.commit()
    return version


def _version(connection: sa.Connection) -> int:
    connection.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS llm_schema"
        " (version INTEGER NOT NULL PRIMARY KEY, applied_ms BIGINT NOT NULL)"
    )
    return int(connection.exec_driver_sql("SELECT max(version) FROM llm_schema").scalar() or 0)


def _apply(connection: sa.Connection, migration: Migration) -> None:
    for statement in migration.statements:
        if connection.dialect.name == "sqlite":
            statement = _of_sqlite.sub(r"\1", statement)
        connection.exec_driver_sql(statement)
    if migration.number in THEN:
        THEN[migration.number](connection)
    connection.exec_driver_sql(
        f"INSERT INTO llm_schema VALUES ({migration.number}, {time.time_ns() // 1_000_000})"
    )


def _statements(script: str) -> list[str]:
    lines = (line for line in script.splitlines() if not line.lstrip().startswith("--"))
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" ;\n")]
