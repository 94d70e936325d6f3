"""What operators do to a database: bring its tables forward and back, and see that sums hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from flowledger.errors import ConfigError, NotFound
from flowledger.store.backfill import repair
from flowledger.store.partitions import (
    Month,
    Parts,
    Progress,
    keep_ahead,
    look,
    one_table,
    partition,
)
from flowledger.store.schema import Migration, applied, migrate, migrate_back, migrations
from flowledger.store.writers import answering, open_writer

__all__ = ["Contents", "Loss", "Upkeep", "open_upkeep"]


class Loss(NamedTuple):
    """What taking a step back loses: in words, and rows by table."""

    step: Migration
    rows: dict[str, int]


class Contents(NamedTuple):
    """What a database holds, and whether its sums are those of its calls."""

    calls: int
    runs: int
    summed: int
    to_sum: int

    @property
    def sums_hold(self) -> bool:
        """Whether every call that asked a model is in the sums, once."""
        return self.summed == self.to_sum


class Upkeep:
    """The tables of one database.

    Args:
        engine: the database.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def applied(self) -> dict[int, int]:
        """The steps that were taken, with their times in Unix milliseconds."""
        with answering():
            return applied(self._engine)

    def forward(self, to: int | None = None) -> list[int]:
        """Take the steps that are missing, up to `to`; returns them."""
        with answering():
            return migrate(self._engine, to)

    def back(self, to: int) -> list[int]:
        """Take back the steps after `to`, newest first; returns them."""
        with answering():
            return migrate_back(self._engine, to)

    def losses(self, to: int) -> list[Loss]:
        """What going back to a step would lose, in the order in which it is lost."""
        with answering(), self._engine.connect() as connection:
            there = applied(self._engine)
            steps = [m for m in reversed(migrations()) if m.number in there and m.number > to]
            return [Loss(step, _rows(connection, step)) for step in steps]

    def parts(self) -> Parts:
        """How the table of calls is kept."""
        with answering(), self._engine.connect() as connection:
            return look(connection)

    def by_month(self, progress: Progress) -> list[Month]:
        """Keep calls by month, and make the months that are missing; returns those."""
        with answering():
            return partition(self._engine, progress)

    def in_one_table(self, progress: Progress) -> bool:
        """Keep all calls in one table again; False where they are."""
        with answering():
            return one_table(self._engine, progress)

    def keep_ahead(self) -> list[Month]:
        """Make the months that are missing where calls are kept by month."""
        with answering():
            return keep_ahead(self._engine)

    def sum_missing(self) -> int:
        """Add up calls that are in no sum, and return how many they were."""
        total = 0
        with answering():
            while summed := repair(self._engine):
                total += summed
        return total

    def contents(self) -> Contents:
        """Count calls, runs and what the sums say of them."""
        with answering(), self._engine.connect() as connection:
            return Contents(*(int(connection.exec_driver_sql(q).scalar() or 0) for q in COUNTS))


# In the order of `Contents`.
COUNTS = (
    "SELECT count(*) FROM llm_calls",
    "SELECT count(*) FROM runs",
    "SELECT sum(calls) FROM llm_rollup WHERE span = 24",
    "SELECT count(*) FROM llm_measured",
)


@contextmanager
def open_upkeep(uri: str) -> Iterator[Upkeep]:
    """The tables of a database that is there.

    Raises:
        ConfigError: the URI names no database.
        NotFound: there is no such file.
    """
    if not uri.startswith(("sqlite", "postgresql")):
        raise ConfigError(
            "tables are in a database: give its sqlite:/// or postgresql:// address with "
            "--backend-store-uri"
        )
    path = sa.make_url(uri).database or ""
    if uri.startswith("sqlite") and not Path(path).is_file():
        raise NotFound(f"there is no database {path}: give another with --backend-store-uri")
    engine = open_writer(uri).engine
    try:
        yield Upkeep(engine)
    finally:
        engine.dispose()


def _rows(connection: sa.Connection, step: Migration) -> dict[str, int]:
    """How many rows each table has that the way back drops."""
    tables = [s.split()[2] for s in step.back if s.startswith("DROP TABLE ")]
    query = "SELECT count(*) FROM {}"
    return {t: int(connection.exec_driver_sql(query.format(t)).scalar() or 0) for t in tables}
