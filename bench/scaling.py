"""How ingest into PostgreSQL grows with workers and with replicas, and what a call takes up there.

The senders, PostgreSQL and the servers share the machine's cores: on two of them the numbers say
how the work divides, not how far it goes on more. Read the ratios.
"""

from contextlib import ExitStack
from pathlib import Path

import psycopg

from bench.calls import make_calls, write_journals
from bench.ingest import Load, make_batches, warm
from bench.places import Databases, postgresql, temporary_folder
from bench.processes import Child
from bench.servers import serving
from bench.table import Row

__all__ = ["measure"]

SECONDS, QUICK_SECONDS = 20, 6
SIZES = (1, 2, 4)
STORED_AS = ("run+trace", "ledger")
CALLS, QUICK_CALLS = 20_000, 2_000
PATIENCE = 600
OF_MLFLOW = (
    *("runs", "params", "metrics", "latest_metrics", "tags", "trace_info", "trace_tags"),
    *("trace_request_metadata", "spans", "entity_associations"),
)
SIZE = "SELECT pg_total_relation_size('{table}')"
OURS = ["llm_calls", "llm_tags", "llm_groups", "llm_rollup", "llm_latencies", "llm_facets"]


def measure(quick: bool) -> list[Row]:
    """Calls a second with 1, 2 and 4 workers and replicas, then rows and bytes of a call."""
    seconds = QUICK_SECONDS if quick else SECONDS
    with postgresql() as databases, temporary_folder() as folder:
        workers = [_calls_per_second(databases, folder, seconds, 1, n) for n in SIZES]
        replicas = [_calls_per_second(databases, folder, seconds, n, 1) for n in SIZES]
        calls = QUICK_CALLS if quick else CALLS
        room = [row for kind in STORED_AS for row in _room(databases, calls, kind)]
    return [*_rows("workers", workers), *_rows("replicas", replicas), *room]


def _rows(what: str, per_second: list[float]) -> list[Row]:
    return [
        Row(
            subject="scaling",
            what=f"calls stored a second, {size} {what}",
            value=value,
            unit="/s",
            peer="1",
            peer_value=per_second[0],
            more_is_better=True,
        )
        for size, value in zip(SIZES, per_second, strict=True)
    ]


def _calls_per_second(
    databases: Databases, folder: Path, seconds: int, replicas: int, workers: int
) -> float:
    uri = databases.new()
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(uri, folder, workers)) for _ in range(replicas)]
        batches = make_batches(seconds)
        for server in servers:
            warm(server, batches, workers)
        load = Load(servers, batches, seconds)
    databases.drop(uri)
    return load.per_second


def _room(databases: Databases, calls: int, store_as: str) -> list[Row]:
    """Rows and bytes of a call, indexes included, in MLflow's tables and in ours."""
    uri, rows = databases.new(), []
    with temporary_folder() as folder:
        write_journals(folder / "journal", make_calls(calls, seed=7))
        with Child("ship", uri=uri, artifact_root=str(folder), store_as=store_as) as child:
            child.ask("ship", timeout=PATIENCE, folder=str(folder / "journal"))
    with psycopg.connect(uri, autocommit=True) as connection:
        for what, tables in (("MLflow's tables", OF_MLFLOW), ("ours", OURS)):
            count = sum(_number(connection, f"SELECT count(*) FROM {t}") for t in tables)
            size = sum(_number(connection, SIZE.format(table=t)) for t in tables)
            rows.append(_each(f"{store_as}, rows a call in {what}", count / calls, "rows"))
            rows.append(_each(f"{store_as}, bytes a call in {what}", size / calls, "B"))
    databases.drop(uri)
    return rows


def _each(what: str, value: float, unit: str) -> Row:
    return Row(subject="scaling", what=what, value=value, unit=unit)


def _number(connection: psycopg.Connection, query: str) -> int:
    found = connection.execute(query.encode()).fetchone()
    return 0 if found is None else int(found[0])
