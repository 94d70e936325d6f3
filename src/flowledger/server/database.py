"""Short questions that the server asks the database for itself: is it there, how much is in it."""

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from flowledger.errors import StoreUnavailable
from flowledger.store.partitions import look
from flowledger.store.schema import (
    REVISION,
    UNKNOWN_STEP,
    migrate,
    refuse_revision,
    refuse_unknown,
)
from flowledger.store.writers import answering, open_writer

__all__ = ["Database"]

COUNTS = {
    "experiments": "SELECT count(*) FROM experiments WHERE lifecycle_stage = 'active'",
    "active_runs": "SELECT count(*) FROM runs"
    " WHERE status = 'RUNNING' AND lifecycle_stage = 'active'",
}
SIZE = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": "SELECT pg_database_size(current_database())",
}
EXPERIMENTS_OF = sa.text(
    "SELECT e.name FROM experiments e JOIN runs r ON r.experiment_id = e.experiment_id"
    " WHERE r.run_uuid IN :ids"
    " UNION SELECT e.name FROM experiments e JOIN trace_info t ON t.experiment_id = e.experiment_id"
    " WHERE t.request_id IN :traces"
).bindparams(sa.bindparam("ids", expanding=True), sa.bindparam("traces", expanding=True))
MOST_IDS = 1000


class Database:
    """The database behind the server, connected when it is first asked.

    Args:
        uri: of a SQLite file or a PostgreSQL database.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        name = sa.make_url(uri).database
        self._file = Path(name) if uri.startswith("sqlite") and name else None
        self._opening = threading.Lock()
        self._engine: sa.Engine | None = None

    @property
    def engine(self) -> sa.Engine:
        """The connections, shared by all threads; our tables are up to date.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        with self._opening:
            if self._engine is None:
                with answering():
                    engine = open_writer(self._uri).engine
                    migrate(engine)
                self._engine = engine
            return self._engine

    def version(self) -> int:
        """The version of our own tables, asked of the database each time.

        Raises:
            StoreUnavailable: it does not answer.
            StoreOutdated: its tables are of a newer flowledger, or of an MLflow that this one does
                not support.
        """
        if self._file is not None and not self._file.exists():
            raise StoreUnavailable(f"{self._file} was deleted")
        refuse_unknown(self._scalar(UNKNOWN_STEP))
        refuse_revision(self._scalar(REVISION))
        return int(self._scalar("SELECT max(version) FROM llm_schema"))

    def counts(self) -> dict[str, int]:
        """How many experiments there are, and how many runs are under way.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        return {name: int(self._scalar(query)) for name, query in COUNTS.items()}

    def size(self) -> int:
        """How many bytes it takes, indexes and MLflow's tables included.

        Raises:
            StoreUnavailable: it does not answer.
        """
        kind = "sqlite" if self._file else "postgresql"
        return int(self._scalar(SIZE[kind]))

    def months_ahead(self) -> int | None:
        """How many months after this one have a place for calls; None where they are in one table.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        with answering(), self.engine.connect() as connection:
            parts = look(connection)
        return parts.ahead if parts.by_month else None

    def experiment_name(self, experiment_id: int) -> str | None:
        """The name of one of MLflow's experiments, None where there is no such.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        query = f"SELECT name FROM experiments WHERE experiment_id = {int(experiment_id)}"
        name: str | None = self._scalar(query)
        return name

    def experiments_of(self, ids: Collection[str]) -> set[str]:
        """The names of the experiments that runs and traces of these ids are in already.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        names: set[str] = set()
        wanted = sorted(ids)
        with answering(), self.engine.connect() as connection:
            for start in range(0, len(wanted), MOST_IDS):
                some = wanted[start : start + MOST_IDS]
                given = {"ids": some, "traces": [f"tr-{one}" for one in some]}
                names |= set(connection.execute(EXPERIMENTS_OF, given).scalars())
        return names

    def close(self) -> None:
        """Close the connections."""
        with self._opening:
            if self._engine is not None:
                self._engine.dispose()

    def _scalar(self, query: str) -> Any:
        with answering(), self.engine.connect() as connection:
            return connection.exec_driver_sql(query).scalar()
