"""The floor of any store: the very same rows by plain `executemany` or `COPY`, made beforehand."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, TypeAlias

from mlflow import MlflowClient

from bench.calls import FEATURES, make_calls
from bench.processes import argument, serve
from flowledger.records import Call, encode
from flowledger.store.bulk import BulkSink
from flowledger.store.entries import entry
from flowledger.store.rows import COLUMNS, Experiment, make_rows
from flowledger.store.writers import SQLITE_PRAGMAS

Batch: TypeAlias = dict[str, list[tuple[Any, ...]]]
GIVEN = argument()
batches: list[Batch] = []


def prepare(calls: int, seed: int) -> float:
    """Make the rows in batches as large as ours; returns how many rows a call has."""
    client = MlflowClient(GIVEN["uri"])
    made = (client.get_experiment(client.create_experiment(name)) for name in FEATURES)
    there = {e.name: Experiment(int(e.experiment_id), e.artifact_location) for e in made}
    batches[:] = [
        make_rows([entry(call) for call in some], there, "run+trace").by_table
        for some in _batches(make_calls(calls, seed=seed))
    ]
    return sum(len(rows) for batch in batches for rows in batch.values()) / calls


def insert() -> float:
    """Seconds for inserting the rows."""
    return _sqlite() if GIVEN["uri"].startswith("sqlite") else _postgresql()


def _sqlite() -> float:
    path = GIVEN["uri"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in SQLITE_PRAGMAS:
            connection.execute(pragma)
        started = time.perf_counter()
        for batch in batches:
            connection.execute("BEGIN IMMEDIATE")
            for table, rows in batch.items():
                marks = ", ".join("?" * len(COLUMNS[table]))
                connection.executemany(f"INSERT INTO {_target(table)} VALUES ({marks})", rows)
            connection.execute("COMMIT")
        return time.perf_counter() - started


def _postgresql() -> float:
    import psycopg

    with psycopg.connect(GIVEN["uri"]) as connection, connection.cursor() as cursor:
        started = time.perf_counter()
        for batch in batches:
            for table, rows in batch.items():
                with cursor.copy(f"COPY {_target(table)} FROM STDIN".encode()) as copy:
                    for row in rows:
                        copy.write_row(row)
            connection.commit()
        return time.perf_counter() - started


def _target(table: str) -> str:
    return f"{table} ({', '.join(COLUMNS[table])})"


def _batches(calls: Iterator[Call]) -> Iterator[list[Call]]:
    some: list[Call] = []
    size = 0
    for call in calls:
        some.append(call)
        size += len(encode(call))
        if size >= BulkSink.batch_bytes:
            yield some
            some, size = [], 0
    if some:
        yield some


serve(prepare=prepare, insert=insert)
