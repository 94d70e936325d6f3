"""Rows of jobs are those MLflow's own API writes, whatever is nested in what."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

import flowledger
from flowledger.capture.context import EMPTY, carried
from flowledger.records import (
    Artifact,
    Call,
    Job,
    Logged,
    Outcome,
    Place,
    Record,
    Span,
    decode,
    encode,
    new_id,
)
from flowledger.records import Metric as Value
from flowledger.testing import capture_calls
from tests.calls import a_map, maybe_text, plain_values, text
from tests.servers import mlflow_server
from tests.test_jobs import opened, recorded, work

ids = st.builds(new_id)
places = st.none() | st.builds(Place, root_id=ids, parent_id=ids, experiment=maybe_text)
outcomes = st.builds(Outcome, success=st.booleans(), error_type=maybe_text)
values = st.builds(
    Value, key=text, value=st.floats(allow_nan=False), timestamp_ms=st.integers(0, 9)
)
any_record = st.one_of(
    st.builds(Job, id=ids, running=st.booleans(), name=text, place=places, params=a_map),
    st.builds(Logged, id=ids, run_id=text, metrics=st.lists(values, max_size=3), tags=a_map),
    st.builds(Span, id=ids, place=places, inputs=plain_values, outcome=outcomes),
    st.builds(Artifact, id=ids, run_id=ids, path=text, content=st.binary(max_size=50)),
)


@given(any_record)
def test_a_decoded_record_is_the_record_that_was_encoded(record: Record) -> None:
    assert record == decode(encode(record))


shapes: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["call", "span", "job"]).map(lambda kind: (kind, [])),
    lambda inner: st.tuples(st.sampled_from(["call", "span", "job"]), st.lists(inner, max_size=3)),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=shapes)
def test_everything_in_a_job_hangs_in_its_one_trace_by_what_is_around_it(
    home: Path, shape: Any
) -> None:
    expected: list[str] = []

    @flowledger.track
    def call(inner: list[Any]) -> None:
        for one in inner:
            walk(one, _here())

    def walk(shape: Any, inside: str) -> None:
        kind, inner = shape
        expected.append(inside)
        if kind == "call":
            call(inner)
            return
        with flowledger.job("j") if kind == "job" else flowledger.span("s") as made:
            for one in inner:
                walk(one, made.id)

    with capture_calls() as calls:
        with flowledger.job("root") as job:
            walk(shape, job.id)
        assert carried.get() is EMPTY
    places = [
        record.place
        for record in calls.records
        if isinstance(record, Call | Span | Job) and not getattr(record, "running", False)
    ]
    assert {job.id} == {place.root_id for place in places if place}
    assert sorted(expected) == sorted(place.parent_id for place in places if place)


def _here() -> str:
    place = carried.get().place
    assert place is not None
    return place.parent_id


TABLES = ("runs", "params", "metrics", "latest_metrics", "tags")


def snapshot(uri: str, run_id: str) -> dict[str, list[Any]]:
    engine = sa.create_engine(uri)
    with engine.connect() as connection:
        found = {
            table: sorted(
                str(row).replace(run_id, "RUN")
                for row in connection.exec_driver_sql(
                    f"SELECT * FROM {table} WHERE run_uuid = '{run_id}'"
                )
            )
            for table in TABLES
        }
    engine.dispose()
    return found


@pytest.mark.parametrize("ended", [False, True])
def test_a_jobs_rows_are_the_rows_mlflows_own_api_writes(database_uri: str, ended: bool) -> None:
    begun = Job(
        id=new_id(),
        producer="0" * 32,
        seq=1,
        start_ns=1_795_000_000 * 10**9,
        running=True,
        name="process",
        experiment="pipeline",
        params={"model": "gpt-4o"},
    )
    metrics = [
        Value(key="loss", value=value, timestamp_ms=at, step=step)
        for value, at, step in [(3.0, 10, 0), (1.0, 30, 2), (2.0, 20, 1), (1.0, 30, 2)]
    ]
    logged = Logged(
        id=new_id(), producer="0" * 32, seq=2, run_id=begun.id, metrics=metrics, tags={"team": "b"}
    )
    end = Job(**{**_fields(begun), "seq": 3, "running": False, "duration_ns": 5 * 10**9})
    sink = opened(database_uri, "/nonexistent/mlruns")
    records: list[Record] = [begun, logged, end] if ended else [begun, logged]
    assert [] == sink.write([encode(record) for record in records])
    sink.close()
    store = SqlAlchemyStore(database_uri, "/nonexistent/mlruns")
    run_id = write_with_mlflow(store, begun, metrics, ended)
    store._dispose_engine()
    assert snapshot(database_uri, begun.id) == snapshot(database_uri, run_id)


def _fields(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in job.__struct_fields__}


def write_with_mlflow(store: SqlAlchemyStore, job: Job, metrics: list[Value], ended: bool) -> str:
    """The same job through `create_run`, `log_batch` and `update_run_info`."""
    experiment = store.get_experiment_by_name("pipeline")
    start_ms = job.start_ns // 10**6
    tags = [RunTag("flowledger.id", job.id), RunTag("team", "b")]
    run = store.create_run(experiment.experiment_id, "", start_ms, tags, job.name)
    run_id = str(run.info.run_id)
    values = [Metric(one.key, one.value, one.timestamp_ms, one.step) for one in metrics]
    store.log_batch(run_id, metrics=values, params=[Param("model", "gpt-4o")], tags=[])
    # Our own id is the run's here, and a tag of MLflow's would be another run's.
    engine = store.engine
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE tags SET value = :id WHERE run_uuid = :id AND key = 'flowledger.id'"),
            {"id": run_id},
        )
    if ended:
        end_ms = start_ms + 5000
        latency = [Metric("latency_seconds", 5.0, end_ms, 0)]
        store.log_batch(run_id, latency, [], [RunTag("status", "success")])
        store.update_run_info(run_id, RunStatus.FINISHED, end_ms, job.name)
    return run_id


@contextmanager
def flowledger_server(folder: Path, database: str) -> Iterator[str]:
    """A flowledger server with its artifacts in this folder."""
    with ExitStack() as stack:
        yield stack.enter_context(mlflow_server(database, folder, "--app-name", "flowledger"))


def test_jobs_and_artifacts_come_through_a_flowledger_server(
    home: Path, sqlite_uri: str, tmp_path: Path
) -> None:
    payloads = recorded(work)
    with flowledger_server(tmp_path, sqlite_uri) as url:
        sink = opened(url, "")
        assert [] == sink.write(payloads)
        assert [] == sink.write(payloads, redelivered=True)
        sink.close()
    [run_id] = {r.run_id for r in map(decode, payloads) if isinstance(r, Artifact)}
    assert [f"{run_id}/artifacts/evidence.json"] == [
        "/".join(path.parts[-3:]) for path in tmp_path.rglob("served/**/evidence.json")
    ]
