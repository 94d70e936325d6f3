"""The promise of a sink, kept by each of its kinds; and rows that are MLflow's own."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import mlflow
import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, SpanStatus, SpanStatusCode, TraceInfo
from mlflow.entities.span import Span
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.store.tracking.dbmodels import models
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracing.utils.truncation import _get_truncated_preview
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from flowledger import logs
from flowledger.config import Destination
from flowledger.errors import StoreMisconfigured, StoreOutdated, StoreUnavailable
from flowledger.records import Actor, Call, Gap, Outcome, Producer, Usage, encode, new_id
from flowledger.store import Sink, open_sink
from flowledger.store.bulk import BulkSink, open_bulk
from flowledger.store.entries import entry
from flowledger.store.http import HttpSink
from flowledger.store.plain import PlainSink
from flowledger.store.rows import COLUMNS, LEDGER
from flowledger.store.schema import migrations
from flowledger.store.writers import Writer
from flowledger.testing import MemorySink
from tests.calls import a_call, any_call
from tests.conftest import postgres_database
from tests.servers import mlflow_server

PRODUCER = encode(Producer(id="0" * 32, producer="0" * 32, host="here", pid=1, version="1"))


def destination(uri: str, store_as: str = "run+trace") -> Destination:
    return Destination(tracking_uri=uri, artifact_root="/nonexistent/mlruns", store_as=store_as)


def rows_of(uri: str, query: str) -> list[dict[str, Any]]:
    engine = sa.create_engine(uri)
    with engine.connect() as connection:
        found = [dict(row._mapping) for row in connection.exec_driver_sql(query)]
    engine.dispose()
    return found


def change(uri: str, statement: str) -> None:
    engine = sa.create_engine(uri)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


class Place:
    """A sink, and how to see what it holds."""

    def __init__(self, kind: str, sink: Sink, uri: str | None) -> None:
        self.kind = kind
        self.sink = sink
        self.client = MlflowClient(tracking_uri=uri) if uri else None

    def stored(self, *calls: Call) -> list[str]:
        """The ids of these calls as often as they are stored."""
        if isinstance(self.sink, MemorySink):
            return sorted(call.id for call in calls if call.id in self.sink.records)
        assert self.client is not None
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        runs = self.client.search_runs(experiments)
        wanted = {call.id for call in calls}
        found = (run.data.tags["flowledger.id"] for run in runs)
        return sorted(call_id for call_id in found if call_id in wanted)


KINDS = {
    "memory": MemorySink,
    "sqlite": BulkSink,
    "postgres": BulkSink,
    "server": HttpSink,
    "plain-server": PlainSink,
    "plain-folder": PlainSink,
}


@pytest.fixture(scope="module", params=KINDS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Each kind of sink in turn, over a store of its own."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    database = folder / "mlflow.db"
    shutil.copy(request.getfixturevalue("empty_sqlite"), database)
    with ExitStack() as stack:
        if kind == "memory":
            uri = None
        elif kind == "postgres":
            server = request.getfixturevalue("postgres_server")
            uri = stack.enter_context(postgres_database(server))
        elif kind == "sqlite":
            uri = f"sqlite:///{database}"
        elif kind == "plain-folder":
            uri = (folder / "mlruns").as_uri()
        else:
            app = ["--app-name", "flowledger"] if kind == "server" else []
            backend = f"sqlite:///{database}"
            uri = stack.enter_context(mlflow_server(backend, folder, *app))
        sink = open_sink(destination(uri)) if uri else MemorySink()
        stack.callback(sink.close)
        yield Place(kind, sink, uri)


def test_the_kind_of_store_chooses_the_kind_of_sink(place: Place) -> None:
    assert KINDS[place.kind] is type(place.sink)


def test_a_stored_call_is_a_run(place: Place) -> None:
    calls = [a_call() for _ in range(3)]
    assert [] == place.sink.write([PRODUCER, *map(encode, calls)])
    assert sorted(call.id for call in calls) == place.stored(*calls)


def test_a_second_delivery_changes_nothing(place: Place) -> None:
    calls = [a_call() for _ in range(3)]
    place.sink.write([PRODUCER, *map(encode, calls[:2])])
    assert [] == place.sink.write([PRODUCER, *map(encode, calls)], redelivered=True)
    assert sorted(call.id for call in calls) == place.stored(*calls)


def test_what_is_no_record_is_refused_by_its_place_and_the_rest_is_stored(place: Place) -> None:
    good = [a_call(), a_call()]
    refused = place.sink.write([PRODUCER, encode(good[0]), b"junk", encode(good[1])])
    assert [2] == [refusal.place for refusal in refused]
    assert all("not a record" in refusal.reason for refusal in refused)
    assert sorted(call.id for call in good) == place.stored(*good)


def open_bulk_sink(uri: str, store_as: str = "run+trace") -> BulkSink:
    sink = open_sink(destination(uri, store_as))
    assert isinstance(sink, BulkSink)
    return sink


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(call=any_call())
def test_any_call_at_all_is_stored(database_uri: str, call: Call) -> None:
    sink = open_bulk_sink(database_uri)
    try:
        assert [] == sink.write([encode(call)])
        found = rows_of(database_uri, f"SELECT id FROM llm_calls WHERE id = '{call.id}'")
        assert [{"id": call.id}] == found
    finally:
        sink.close()


def test_one_poison_record_is_refused_alone(database_uri: str) -> None:
    good = [a_call() for _ in range(5)]
    poison = a_call(seq=2**64 - 1)  # no 64-bit signed integer holds it
    sink = open_bulk_sink(database_uri)
    refused = sink.write([PRODUCER, *map(encode, [*good[:3], poison, *good[3:]])])
    sink.close()
    assert [refusal.place for refusal in refused] == [4]
    assert len(rows_of(database_uri, "SELECT id FROM llm_calls")) == 5


REFUSE = {
    "sqlite": "CREATE TRIGGER refuse BEFORE INSERT ON llm_calls WHEN NEW.operation = 'poison'"
    " BEGIN SELECT RAISE(ABORT, 'a foreign key'); END",
    "postgresql": 'ALTER TABLE llm_calls ADD CONSTRAINT "a foreign key"'
    " CHECK (operation <> 'poison')",
}


def test_a_record_whose_refusal_speaks_of_a_foreign_key_is_refused_alone(
    database_uri: str,
) -> None:
    sink = open_bulk_sink(database_uri)
    change(database_uri, REFUSE[database_uri.partition(":")[0]])
    refused = sink.write([PRODUCER, encode(a_call(operation="poison")), encode(good := a_call())])
    sink.close()
    assert [1] == [refusal.place for refusal in refused]
    assert [{"id": good.id}] == rows_of(database_uri, "SELECT id FROM llm_calls")


def test_a_call_of_an_experiment_that_was_deleted_meanwhile_is_stored_at_the_next_delivery(
    postgres_uri: str,
) -> None:
    sink = open_bulk_sink(postgres_uri)
    poison = a_call(experiment="gone", seq=2**64 - 1)
    assert [1] == [one.place for one in sink.write([PRODUCER, encode(poison)])]
    change(postgres_uri, "DELETE FROM experiments WHERE name = 'gone'")
    batch = [PRODUCER, encode(a_call(experiment="gone"))]
    with pytest.raises(StoreUnavailable):
        sink.write(batch)
    assert [] == sink.write(batch)
    sink.close()


class Odd:
    """A database whose rows of some calls cannot be made, for a reason nobody thought of.

    Args:
        writer: the database.
        operation: of the calls that are odd; every call's when empty.
    """

    def __init__(self, writer: Any, operation: str = "") -> None:
        self._writer = writer
        self._operation = operation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def insert(self, cursor: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if any(self._operation in row for row in rows) or not self._operation:
            raise KeyError(rows[0][0])  # as an exception quotes a value
        self._writer.insert(cursor, table, rows)


def test_a_record_that_cannot_be_made_into_rows_is_refused_alone_and_where_is_logged(
    database_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    logs._last.clear()  # an earlier test may have logged the same
    sink = open_bulk(destination(database_uri), lambda writer: cast(Writer, Odd(writer, "odd")))
    good, odd = [a_call() for _ in range(3)], a_call(operation="odd")
    refused = sink.write([PRODUCER, *map(encode, [*good, odd])])
    sink.close()
    assert [4] == [refusal.place for refusal in refused]
    assert "it cannot be made into rows: KeyError" in refused[0].reason
    assert 3 == len(rows_of(database_uri, "SELECT id FROM llm_calls"))
    [logged] = [one.getMessage() for one in caplog.records if "made into rows" in one.getMessage()]
    assert ("in insert" in logged, "KeyError" in logged, odd.id in logged) == (True, True, False)


def test_where_no_record_at_all_can_be_made_into_rows_none_is_rejected(sqlite_uri: str) -> None:
    sink = open_bulk(destination(sqlite_uri), lambda writer: cast(Writer, Odd(writer)))
    with pytest.raises(StoreUnavailable, match="no record can be stored"):
        sink.write([PRODUCER, encode(a_call()), encode(a_call())])
    sink.close()


def test_a_database_that_refuses_everything_is_an_outage_and_not_a_heap_of_bad_records(
    database_uri: str,
) -> None:
    sink = open_bulk_sink(database_uri)
    change(database_uri, "ALTER TABLE spans RENAME TO elsewhere")
    with pytest.raises(StoreUnavailable, match="spans"):
        sink.write([PRODUCER, encode(a_call()), encode(a_call())])
    sink.close()


def test_producers_and_gaps_are_kept_beside_the_calls(database_uri: str) -> None:
    gap = Gap(id=new_id(), producer="0" * 32, first_seq=3, last_seq=9, count=5, reason="full")
    grown = msgspec.structs.replace(gap, last_seq=12, count=8)
    sink = open_bulk_sink(database_uri)
    sink.write([PRODUCER, encode(gap)])
    sink.write([PRODUCER, encode(grown)])
    sink.close()
    [producer] = rows_of(database_uri, "SELECT * FROM llm_producers")
    [kept] = rows_of(database_uri, "SELECT * FROM llm_gaps")
    assert (producer["host"], producer["pid"]) == ("here", 1)
    assert (kept["first_seq"], kept["last_seq"], kept["dropped"]) == (3, 12, 8)


@pytest.mark.parametrize(
    ("store_as", "runs", "traces"),
    [("run+trace", 1, 1), ("run", 1, 0), ("trace", 0, 1), ("ledger", 0, 0)],
)
def test_what_a_call_becomes_is_a_setting(
    sqlite_uri: str, store_as: str, runs: int, traces: int
) -> None:
    sink = open_bulk_sink(sqlite_uri, store_as)
    sink.write([encode(a_call())])
    sink.close()
    [row] = rows_of(sqlite_uri, "SELECT * FROM llm_calls")
    assert runs == len(rows_of(sqlite_uri, "SELECT * FROM runs"))
    assert traces == len(rows_of(sqlite_uri, "SELECT * FROM spans"))
    assert ("trace" not in store_as) == (row["content"] is not None)


def test_a_deleted_experiment_is_restored_when_calls_come_for_it(database_uri: str) -> None:
    client = MlflowClient(tracking_uri=database_uri)
    client.delete_experiment(client.create_experiment("support"))
    sink = open_bulk_sink(database_uri)
    sink.write([encode(a_call())])
    sink.close()
    [experiment] = client.search_experiments(filter_string="name = 'support'")
    assert "active" == experiment.lifecycle_stage


def test_an_unknown_price_is_null_and_never_zero(database_uri: str) -> None:
    sink = open_bulk_sink(database_uri)
    sink.write([encode(a_call(model="no-such-model", model_asked="no-such-model"))])
    sink.close()
    [row] = rows_of(database_uri, "SELECT cost_usd FROM llm_calls")
    assert row["cost_usd"] is None
    assert rows_of(database_uri, "SELECT * FROM metrics WHERE key = 'cost_usd'") == []


def test_tokens_that_nobody_reported_are_counted_and_say_so(database_uri: str) -> None:
    sink = open_bulk_sink(database_uri)
    sink.write([encode(a_call(usage=Usage()))])
    sink.close()
    [row] = rows_of(database_uri, "SELECT * FROM llm_calls")
    assert row["usage_source"] in ("counted", "estimated")
    assert 0 < row["input_tokens"] < 30


UPGRADED = "UPDATE alembic_version SET version_num = 'f4a9b2c7d1e6'"  # by MLflow 3.18
ADVICE = (
    "the database is at MLflow revision f4a9b2c7d1e6, and this flowledger supports dc11669786a5 of"
    " MLflow 3.17.2: calls wait. If its MLflow is older, back it up and run `mlflow db upgrade`; if"
    " it is newer, upgrade flowledger"
)


def test_a_database_that_another_mlflow_upgraded_takes_no_calls_and_no_runs_without_them(
    database_uri: str,
) -> None:
    sink = open_bulk_sink(database_uri)
    sink.write([encode(a_call())])
    change(database_uri, UPGRADED)
    with pytest.raises(StoreOutdated, match=re.escape(ADVICE)):
        sink.write([encode(a_call())])
    sink.close()
    with pytest.raises(StoreOutdated, match=re.escape(ADVICE)):
        open_sink(destination(database_uri))
    assert [1, 1] == [len(rows_of(database_uri, f"SELECT * FROM {t}")) for t in ("runs", LEDGER)]


def test_an_mlflow_of_an_unsupported_revision_makes_no_database(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    code = (
        "import sys; from flowledger.store import open_sink, schema; from flowledger.config import"
        " Destination; schema.TESTED_REVISIONS.clear(); open_sink(Destination(tracking_uri="
        "sys.argv[1], artifact_root='/nonexistent', store_as='run'))"
    )
    command = [sys.executable, "-c", code, uri]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "StoreOutdated: the database is at MLflow revision" in ran.stderr
    assert [] == list(tmp_path.iterdir())


def test_a_database_file_that_was_deleted_or_replaced_is_an_outage(
    sqlite_uri: str, empty_sqlite: Path
) -> None:
    path = Path(sqlite_uri.removeprefix("sqlite:///"))
    sink = open_bulk_sink(sqlite_uri)
    sink.write([encode(a_call())])
    path.unlink()
    with pytest.raises(StoreUnavailable, match="was deleted"):
        sink.write([encode(a_call())])
    shutil.copy(empty_sqlite, path)
    with pytest.raises(StoreUnavailable, match="was replaced"):
        sink.write([encode(a_call())])
    sink.close()


def test_a_database_that_is_not_there_is_an_outage() -> None:
    with pytest.raises(StoreUnavailable, match="does not answer"):
        open_sink(destination("postgresql://nobody@127.0.0.1:9/none"))


def test_ledger_rows_alone_need_a_database(tmp_path: Path) -> None:
    with pytest.raises(StoreMisconfigured, match="FLOWLEDGER_STORE_AS"):
        open_sink(destination((tmp_path / "mlruns").as_uri(), "ledger"))


def test_the_columns_we_write_are_the_columns_of_mlflows_tables() -> None:
    tables = models.SqlRun.metadata.tables
    ours = {name: set(columns) for name, columns in COLUMNS.items() if name in tables}
    theirs = {name: {column.name for column in tables[name].columns} for name in ours}
    assert all(ours[name] <= theirs[name] for name in ours)
    required = {
        (name, column.name)
        for name in ours
        for column in tables[name].columns
        if not column.nullable and column.server_default is None
    }
    assert set() == {(name, column) for name, column in required if column not in ours[name]}


# The differential test: one call written by us and by MLflow's own API.

FAILED = Outcome(success=False, error_type="TimeoutError", message="too late", stack="at line 1")
VARIED = [
    a_call(),
    a_call(outcome=FAILED, response=None),
    a_call(prompt="plain text", first_token_ns=50_000_000, params={"top": 1}, tags={"team": "b"}),
    a_call(actor=Actor(), feature=None, experiment=None, kind="embedding", response={"count": 2}),
    a_call(prompt="ü" * 9000, response="ß" * 9000, metrics={"score": math.nan, "big": math.inf}),
    a_call(prompt={"question": "?"}, kind="custom", response=[1, 2]),
]


@pytest.mark.parametrize("number", range(len(VARIED)))
def test_our_rows_are_the_rows_mlflows_own_api_writes(database_uri: str, number: int) -> None:
    call = VARIED[number]
    sink = open_bulk_sink(database_uri)
    assert [] == sink.write([encode(call)])
    ours = snapshot(database_uri, call.id, f"tr-{call.id}")
    sink.close()
    store = SqlAlchemyStore(database_uri, "/nonexistent/mlruns")
    run_id, trace_id = write_with_mlflow(store, call)
    theirs = snapshot(database_uri, run_id, trace_id)
    store._dispose_engine()
    assert ours == theirs


def write_with_mlflow(store: SqlAlchemyStore, call: Call) -> tuple[str, str]:
    """The same call through `create_run`, `log_batch`, `start_trace` and `log_spans`."""
    made = entry(call)
    experiment = store.get_experiment_by_name(made.experiment)
    tags = [mlflow.entities.RunTag(key, value) for key, value in made.tags]
    run = store.create_run(
        experiment.experiment_id, call.actor.user_id or "", made.start_ns // 10**6, tags, made.name
    )
    end_ms = made.end_ns // 10**6
    params = [Param(key, value) for key, value in made.params]
    metrics = [Metric(key, value, end_ms, 0) for key, value in made.metrics]
    store.log_batch(run.info.run_id, metrics=metrics, params=params, tags=[])
    status = "FINISHED" if call.outcome.success else "FAILED"
    store.update_run_info(
        run.info.run_id, mlflow.entities.RunStatus.from_string(status), end_ms, made.name
    )
    trace_id = f"tr-{new_id()}"
    span = mlflow_span(call, trace_id)
    store.log_spans(experiment.experiment_id, [span])
    store.start_trace(mlflow_trace_info(call, trace_id, experiment.experiment_id, run, span))
    return run.info.run_id, trace_id


def mlflow_span(call: Call, trace_id: str) -> Span:
    """The span as MLflow's tracing SDK makes it."""
    made = entry(call)
    span: Any = mlflow.entities.LiveSpan(otel_span(made), trace_id, made.trace.span_type)
    for key, text in made.trace.attributes.items():
        if key not in ("mlflow.traceRequestId", "mlflow.spanType"):
            span.set_attribute(key, json.loads(text))
    if call.outcome.success:
        span.set_status(SpanStatus(SpanStatusCode.OK))
    else:
        outcome = call.outcome
        described = f"{outcome.error_type}: {outcome.message}"
        span.set_status(SpanStatus(SpanStatusCode.ERROR, described))
        span._span.add_event(
            "exception",
            {
                "exception.message": outcome.message or "",
                "exception.type": outcome.error_type or "",
                "exception.stacktrace": outcome.stack or "",
            },
            timestamp=made.end_ns,
        )
    span._span.end(end_time=made.end_ns)
    ended: Span = span.to_immutable_span()
    return ended


def otel_span(made: Any) -> Any:
    provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
    tracer = provider.get_tracer("test")
    return tracer.start_span(made.trace.name, start_time=made.start_ns)


def mlflow_trace_info(
    call: Call, trace_id: str, experiment_id: str, run: Any, span: Span
) -> TraceInfo:
    made = entry(call)
    metadata = {
        "mlflow.sourceRun": run.info.run_id,
        "mlflow.trace_schema.version": "3",
        "mlflow.trace.user": call.actor.user_id,
        "mlflow.trace.session": call.actor.session_id,
        "mlflow.trace.tokenUsage": made.trace.attributes.get("mlflow.chat.tokenUsage"),
        "mlflow.trace.cost": made.trace.attributes.get("mlflow.llm.cost"),
    }
    attributes = made.trace.attributes
    return TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=made.start_ns // 10**6,
        execution_duration=made.end_ns // 10**6 - made.start_ns // 10**6,
        state=TraceState.OK if call.outcome.success else TraceState.ERROR,
        request_preview=_get_truncated_preview(attributes.get("mlflow.spanInputs"), "user"),
        response_preview=_get_truncated_preview(attributes.get("mlflow.spanOutputs"), "assistant"),
        trace_metadata={key: value for key, value in metadata.items() if value},
        tags={"mlflow.traceName": made.trace.name, **dict(made.trace.tags)},
    )


OURS_ALONE = ("db_payload_generation",)  # counts rewrites of a trace; ours is written once


def snapshot(uri: str, run_id: str, trace_id: str) -> dict[str, Any]:
    """Every row of a run and its trace, without their ids."""
    queries = {
        **{t: f"SELECT * FROM {t} WHERE run_uuid = '{run_id}'" for t in RUN_TABLES},
        **{t: f"SELECT * FROM {t} WHERE request_id = '{trace_id}'" for t in TRACE_TABLES},
        "spans": f"SELECT * FROM spans WHERE trace_id = '{trace_id}'",
    }
    found = {table: rows_of(uri, query) for table, query in queries.items()}
    span_ids = [row["span_id"] for row in found["spans"]]
    ids = {trace_id: "TRACE", run_id: "RUN", **dict.fromkeys(span_ids, "SPAN")}
    return {
        table: sorted((normal(row, ids) for row in rows), key=str) for table, rows in found.items()
    }


RUN_TABLES = ("runs", "params", "metrics", "latest_metrics", "tags")
TRACE_TABLES = ("trace_info", "trace_tags", "trace_request_metadata")


def normal(row: dict[str, Any], ids: dict[str, str]) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key not in OURS_ALONE}
    if "content" in kept:
        kept["content"] = without_ids(json.loads(kept["content"]))
    if row.get("key") == "flowledger.id":
        kept["value"] = "ID"
    for key, value in kept.items():
        if isinstance(value, str):
            for one, name in ids.items():
                value = value.replace(one, name)
            kept[key] = value
    return kept


def without_ids(content: dict[str, Any]) -> dict[str, Any]:
    attributes = {key: json.loads(text) for key, text in content["attributes"].items()}
    attributes.pop("mlflow.traceRequestId")
    return {**content, "trace_id": "", "span_id": "", "attributes": attributes}


def test_mlflows_client_reads_what_we_wrote(database_uri: str) -> None:
    call = a_call(outcome=FAILED, parent_id=None)
    sink = open_bulk_sink(database_uri)
    sink.write([encode(call)])
    sink.close()
    client = MlflowClient(tracking_uri=database_uri)
    [experiment] = client.search_experiments(filter_string="name = 'support'")
    [run] = client.search_runs([experiment.experiment_id], "tags.persona_id = 'helper'")
    [listed] = client.search_traces(
        locations=[experiment.experiment_id], run_id=run.info.run_id, include_spans=False
    )
    trace = client.get_trace(listed.info.trace_id)
    assert ("FAILED", call.id) == (run.info.status, run.info.run_id)
    assert run.data.metrics["latency_ms"] == 120.0
    assert run.data.params["prompt"] == "Where is my order?"
    assert trace.info.state.value == "ERROR"
    assert trace.info.token_usage == {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
    assert call.prompt == trace.data.spans[0].inputs["messages"]
    assert trace.info.trace_metadata["mlflow.trace.user"] == "ana"


def test_sql_over_mlflows_tables_gives_the_tokens_of_a_persona(database_uri: str) -> None:
    usages = [(100, 20), (200, 40)]
    calls = [a_call(usage=Usage(input_tokens=i, output_tokens=o)) for i, o in usages]
    sink = open_bulk_sink(database_uri)
    sink.write([encode(call) for call in calls])
    sink.close()
    query = (
        "SELECT persona.value AS persona, sum(tokens.value) / count(*) AS mean"
        " FROM params AS persona JOIN metrics AS tokens USING (run_uuid)"
        " WHERE persona.key = 'persona_id' AND tokens.key = 'total_tokens' GROUP BY persona.value"
    )
    assert [{"persona": "helper", "mean": 180.0}] == rows_of(database_uri, query)


def test_migrations_have_numbers_of_their_own_and_are_applied_once(database_uri: str) -> None:
    numbers = [migration.number for migration in migrations()]
    assert sorted(set(numbers)) == numbers
    for _ in range(2):
        open_bulk_sink(database_uri).close()
    applied = rows_of(database_uri, "SELECT version FROM llm_schema ORDER BY version")
    assert numbers == [row["version"] for row in applied]


def test_only_a_process_of_our_own_freezes_what_it_has_loaded(
    sqlite_uri: str, tmp_path: Path
) -> None:
    program = """
import gc
import sys
from pathlib import Path

from flowledger import config
from flowledger.shipping.collector import Collector
from flowledger.store import open_sink

destination = config.load(tracking_uri=sys.argv[1]).destination
before = gc.get_freeze_count()
open_sink(destination).close()
print(gc.get_freeze_count() - before)
Collector(Path(sys.argv[2]), destination).run_once(timeout=60)
print(gc.get_freeze_count() > before)
"""
    said = subprocess.check_output(
        [sys.executable, "-c", program, sqlite_uri, tmp_path / "journals"], text=True
    )
    assert ["0", "True"] == said.splitlines()
