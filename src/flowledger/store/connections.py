"""Connections to PostgreSQL: how long it may take, and what PgBouncer does not let through."""

import math
from typing import Any, NamedTuple

import sqlalchemy as sa

__all__ = [
    "PATIENT",
    "UNLIMITED",
    "USUAL",
    "Timeouts",
    "limit_statements",
    "tcp_options",
    "without_prepared_statements",
]

# A peer that is gone without a word is given up after 10 + 3 * 5 seconds of silence.
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}

UNLIMITED = "SET LOCAL statement_timeout = 0"


class Timeouts(NamedTuple):
    """Seconds for reaching the database, and for one statement."""

    connect: float = 10.0
    statement: float = 40.0

    @property
    def statement_ms(self) -> int:
        """As PostgreSQL wants it; 0 would be no limit."""
        return max(1, round(self.statement * 1000))


USUAL = Timeouts()
# For what an operator starts and waits for: proving, erasing, giving space back.
PATIENT = Timeouts(statement=86_400.0)


def tcp_options(timeouts: Timeouts) -> dict[str, Any]:
    """What libpq is told, which knows whole seconds and takes 1 as 2."""
    return {"connect_timeout": math.ceil(timeouts.connect), **KEEPALIVES}


def limit_statements(engine: sa.Engine, timeouts: Timeouts) -> None:
    """Have PostgreSQL end every statement of this engine that takes longer.

    It is said in each transaction: behind PgBouncer the next one may be on another connection.
    """
    limit = f"SET LOCAL statement_timeout = {timeouts.statement_ms}"

    @sa.event.listens_for(engine, "begin")
    def say(connection: sa.Connection) -> None:
        connection.exec_driver_sql(limit)


def without_prepared_statements(
    dialect: sa.Dialect, record: object, arguments: object, parameters: dict[str, Any]
) -> None:
    """Keep psycopg from preparing statements, as a listener to an engine's `do_connect`.

    PgBouncer in transaction mode gives each transaction another server connection, where a
    statement that was prepared for the last one is not known.
    """
    if dialect.driver == "psycopg":
        parameters.setdefault("prepare_threshold", None)
