"""MLflow's daily rollups hold again after whatever we change on a day that has one."""

from typing import Any

import pytest
import sqlalchemy as sa
from mlflow.store.db.trace_rollups import run_sql_trace_rollups
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from flowledger.audit.erasure import purge
from flowledger.records import Usage, encode
from tests.calls import NOW_NS, a_call
from tests.test_store import open_bulk_sink, rows_of, write_with_mlflow

DAY_NS = 86_400 * 10**9
USAGE = Usage(input_tokens=100, output_tokens=10)
QUEUE = "SELECT * FROM sql_trace_rollup_rebuild_queue ORDER BY rollup_family"


def write_calls(uri: str, count: int, days_ago: int = 5) -> None:
    sink = open_bulk_sink(uri)
    start_ns = NOW_NS - days_ago * DAY_NS
    calls = [a_call(start_ns=start_ns, usage=USAGE) for _ in range(count)]
    assert [] == sink.write([encode(call) for call in calls])
    sink.close()


def roll_up(uri: str) -> dict[str, tuple[int, float | None]]:
    """Roll days up as MLflow's scheduler does; counts and sums of what is about traces."""
    engine = sa.create_engine(uri)
    run_sql_trace_rollups(engine)
    engine.dispose()
    rows = rows_of(
        uri, "SELECT * FROM sql_trace_metric_daily_rollups WHERE grouping_set = 'global'"
    )
    return {row["metric_name"]: (row["sample_count"], row["sum_value"]) for row in rows}


def queue_of(uri: str) -> list[dict[str, Any]]:
    return rows_of(uri, QUEUE)


def test_calls_that_come_after_their_day_was_rolled_up_are_in_its_rollup(
    database_uri: str,
) -> None:
    write_calls(database_uri, 10)
    assert [] == queue_of(database_uri)
    before = roll_up(database_uri)
    assert ((10, None), (10, 1000.0)) == (before["trace_count"], before["input_tokens"])
    write_calls(database_uri, 10)
    after = roll_up(database_uri)
    assert ((20, None), (20, 2000.0)) == (after["trace_count"], after["input_tokens"])


def test_calls_of_the_last_day_are_left_to_mlflow(sqlite_uri: str) -> None:
    write_calls(sqlite_uri, 1)
    roll_up(sqlite_uri)
    write_calls(sqlite_uri, 1, days_ago=0)
    assert [] == queue_of(sqlite_uri)


def test_we_queue_what_mlflows_own_writers_queue(
    database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = a_call(start_ns=NOW_NS - 5 * DAY_NS, usage=USAGE)
    write_calls(database_uri, 1)
    roll_up(database_uri)
    write_calls(database_uri, 1)
    ours = queue_of(database_uri)
    roll_up(database_uri)
    assert [] == queue_of(database_uri)
    monkeypatch.setenv("MLFLOW_SQL_TRACE_ROLLUPS_ENABLED", "true")
    write_with_mlflow(SqlAlchemyStore(database_uri, "/nonexistent/mlruns"), call)
    assert queue_of(database_uri) == ours
    assert {"assessment", "span_cost", "trace_metric"} == {row["rollup_family"] for row in ours}


def test_calls_that_are_purged_leave_the_rollup(database_uri: str) -> None:
    write_calls(database_uri, 10)
    roll_up(database_uri)
    purge(database_uri, NOW_NS // 10**6, by="ops", reason="", everything=True, vacuum=False)
    assert {} == roll_up(database_uri)
