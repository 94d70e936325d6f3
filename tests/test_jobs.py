"""Jobs, stages, spans and artifacts: what is recorded, and what MLflow then shows."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient

import flowledger
from flowledger.capture import recorder
from flowledger.config import Destination, load
from flowledger.records import Artifact, Job, Logged, Place, Span, decode, encode
from flowledger.store import Sink, open_sink
from flowledger.testing import Captured, MemorySink, capture_calls
from tests.calls import a_call


@flowledger.track(model="gpt-4o")
def ask(question: str) -> str:
    """Ask a model."""
    return question


def recorded(work: Any) -> list[bytes]:
    """The records of some work, as they go into the journal."""
    kept: list[bytes] = []
    made = recorder.Recorder(load(), "0" * 32, lambda seq, payload: kept.append(payload))
    before = recorder.use(made)
    try:
        work()
    finally:
        recorder.use(before)
    return kept


def work() -> None:
    """What technoshare's document describes, in small."""
    with flowledger.job("process", feature="pipeline", params={"model": "gpt-4o"}) as job:
        with job.stage("retrieval") as stage:
            stage.log_metric("snippets", 1)
            stage.log_metric("snippets", 5, step=2)
            stage.log_metric("snippets", 3, step=1)
        with job.stage("analysis"), flowledger.span("run", "CHAIN", inputs="x"):
            ask("why")
        job.set_tags({"outcome": "pending"})
        job.set_tag("outcome", "success")
        job.log_dict({"a": 1}, "evidence.json")
        job.log_text("hi", "folder/note.txt")


def opened(uri: str, root: str) -> Sink:
    return open_sink(Destination(tracking_uri=uri, artifact_root=root, store_as="run+trace"))


def of_kind(calls: Captured, kind: type) -> list[Any]:
    return [record for record in calls.records if isinstance(record, kind)]


def test_a_job_is_recorded_when_it_begins_and_when_it_ends(home: Path) -> None:
    with capture_calls() as calls, flowledger.context(user_id="ana"), flowledger.job("j") as job:
        ask("why")
    begun, ended = of_kind(calls, Job)
    assert (job.id, job.id, True, False) == (begun.id, ended.id, begun.running, ended.running)
    assert "ana" == begun.actor.user_id
    assert [job.id] == [call.parent_id for call in calls]
    assert [1, 2, 3] == [record.seq for record in calls.records]


def test_a_failed_stage_fails_its_job_and_what_was_raised_is_raised_again(home: Path) -> None:
    with (
        capture_calls() as calls,
        pytest.raises(ValueError, match="no"),
        flowledger.job("j") as job,
        job.stage("s"),
    ):
        raise ValueError("no")
    ended = [record for record in of_kind(calls, Job) if not record.running]
    assert ["ValueError", "ValueError"] == [record.outcome.error_type for record in ended]
    assert all('raise ValueError("no")' in (record.outcome.stack or "") for record in ended)


def test_functions_and_coroutines_can_be_jobs(home: Path) -> None:
    @flowledger.job("plain")
    def plain() -> str:
        return ask("a")

    @flowledger.job("async")
    async def coroutine() -> str:
        await asyncio.sleep(0)
        return ask("b")

    with capture_calls() as calls:
        assert ["a", "a", "b"] == [plain(), plain(), asyncio.run(coroutine())]
    ended = [record for record in of_kind(calls, Job) if not record.running]
    assert ["plain", "plain", "async"] == [record.name for record in ended]
    assert [record.id for record in ended] == [call.parent_id for call in calls]


def test_nesting_reaches_threads_and_tasks(home: Path) -> None:
    async def tasks(job: Any) -> None:
        async def stage(name: str) -> None:
            with job.stage(name):
                await asyncio.sleep(0)
                ask(name)

        await asyncio.gather(stage("one"), stage("two"))

    with capture_calls(carry_threads=True) as calls, flowledger.job("j") as job:
        thread = threading.Thread(target=ask, args=("thread",))
        thread.start()
        thread.join()
        asyncio.run(tasks(job))
    stages = {r.name: r.id for r in of_kind(calls, Job) if r.parent_id == job.id}
    parents = {call.prompt["question"]: call.parent_id for call in calls}
    assert {"thread": job.id, **stages} == parents
    assert {job.id} == {call.place.root_id for call in calls if call.place}


def test_what_is_logged_in_a_call_without_a_job_is_part_of_the_call(home: Path) -> None:
    @flowledger.track(tags={"team": "a"}, params={"top": 1})
    def call() -> None:
        flowledger.log_metric("score", 1)
        flowledger.set_tags({"team": "b", "tab": "c"})
        flowledger.log_params({"top": 2, "k": 3})

    with capture_calls() as calls:
        call()
    assert calls == calls.records
    assert ({"score": 1}, {"team": "b", "tab": "c"}) == (calls[0].metrics, calls[0].tags)
    assert {"top": 1, "k": 3} == calls[0].params


def test_spans_and_a_metrics_history_come_after_their_call(home: Path) -> None:
    @flowledger.track
    def call() -> None:
        for step in range(3):
            flowledger.log_metric("loss", 1 / (step + 1), step)
        with flowledger.span("inside"):
            pass

    with capture_calls() as calls:
        call()
    made, span, logged = calls.records
    assert isinstance(logged, Logged)
    assert isinstance(span, Span)
    assert (made.id, made.id) == (logged.run_id, span.place and span.place.root_id)
    assert [0, 1, 2] == [metric.step for metric in logged.metrics]


def test_a_file_that_is_too_large_is_left_out_and_its_run_says_so(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "large.bin").write_bytes(b"x" * 11)
    with capture_calls(max_artifact_bytes=10) as calls, flowledger.job("j") as job:
        job.log_artifact(tmp_path / "large.bin")
        job.log_artifact(tmp_path / "missing")
        job.log_text("small", "small.txt")
    assert ["small.txt"] == [artifact.path for artifact in of_kind(calls, Artifact)]
    [logged] = of_kind(calls, Logged)
    assert {"flowledger.left_out.large.bin": "11 bytes, max_artifact_bytes is 10"} == logged.tags
    assert "large.bin is left out" in caplog.text


def test_a_memory_sink_keeps_the_end_of_a_job(home: Path) -> None:
    sink = MemorySink()
    sink.write(recorded(work))
    jobs = [record for record in sink.records.values() if isinstance(record, Job)]
    assert [False] * 3 == [job.running for job in jobs]


def rows(uri: str) -> dict[str, list[Any]]:
    """Everything that jobs write, table by table."""
    engine = sa.create_engine(uri)
    tables = ("runs", "params", "metrics", "latest_metrics", "tags", "trace_info", "spans")
    with engine.connect() as connection:
        found = {
            table: sorted(map(str, connection.exec_driver_sql(f"SELECT * FROM {table}")))
            for table in tables
        }
    engine.dispose()
    return found


def test_a_job_is_a_run_with_nested_runs_a_trace_and_artifacts(
    home: Path, database_uri: str, tmp_path: Path
) -> None:
    payloads = recorded(work)
    sink = opened(database_uri, str(tmp_path / "mlruns"))
    assert [] == sink.write(payloads)
    before = rows(database_uri)
    for number in range(len(payloads)):  # a second delivery, from wherever it begins
        assert [] == sink.write(payloads[number:], redelivered=True)
    assert before == rows(database_uri)
    sink.close()
    client = MlflowClient(tracking_uri=database_uri)
    [experiment] = client.search_experiments(filter_string="name = 'pipeline'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    job, stage, call = runs["process"], runs["retrieval"], runs["ask"]
    assert {"FINISHED"} == {run.info.status for run in runs.values()}
    assert job.info.run_id == stage.data.tags["mlflow.parentRunId"]
    assert job.info.run_id == stage.data.tags["mlflow.rootRunId"]
    assert runs["analysis"].info.run_id == call.data.tags["mlflow.parentRunId"]
    assert ("success", "gpt-4o") == (job.data.tags["outcome"], job.data.params["model"])
    assert 5.0 == stage.data.metrics["snippets"]
    assert 0 < stage.data.metrics["latency_seconds"]
    history = client.get_metric_history(stage.info.run_id, "snippets")
    assert [(0, 1.0), (1, 3.0), (2, 5.0)] == sorted((one.step, one.value) for one in history)
    spans = client.get_trace(f"tr-{job.info.run_id}").data.spans
    names = {span.span_id: span.name for span in spans}
    tree = {span.name: names.get(span.parent_id or "") for span in spans}
    nested = {"retrieval": "process", "analysis": "process", "run": "analysis", "ask": "run"}
    assert {"process": None, **nested} == tree


def test_artifacts_are_put_where_mlflow_finds_them(
    home: Path, sqlite_uri: str, tmp_path: Path
) -> None:
    sink = opened(sqlite_uri, "")
    client = MlflowClient(tracking_uri=sqlite_uri)
    client.create_experiment("pipeline", (tmp_path / "artifacts").as_uri())
    payloads = recorded(work)
    assert [] == sink.write(payloads)
    sink.close()
    [run_id] = {r.run_id for r in map(decode, payloads) if isinstance(r, Artifact)}
    assert ["evidence.json", "folder"] == sorted(f.path for f in client.list_artifacts(run_id))
    assert "hi" == Path(client.download_artifacts(run_id, "folder/note.txt")).read_text()


def test_an_artifact_store_that_is_away_holds_up_nothing_and_gets_its_files_later(
    home: Path, database_uri: str, tmp_path: Path
) -> None:
    place = tmp_path / "artifacts"
    place.write_text("a file where a folder should be")
    sink = opened(database_uri, "")
    client = MlflowClient(tracking_uri=database_uri)
    client.create_experiment("pipeline", place.as_uri())
    payloads = recorded(work)
    assert [] == sink.write(payloads)
    engine = sa.create_engine(database_uri)
    with engine.connect() as connection:
        count = sa.text("SELECT count(*) FROM llm_artifacts")
        assert 2 == connection.execute(count).scalar()
        connection.rollback()
        assert 1 == connection.execute(sa.text("SELECT count(*) FROM llm_calls")).scalar()
        connection.rollback()
        place.unlink()
        sink._artifacts._try_at = 0.0  # type: ignore[attr-defined]
        assert [] == sink.write([])
        assert 0 == connection.execute(count).scalar()
    engine.dispose()
    sink.close()
    [run_id] = {r.run_id for r in map(decode, payloads) if isinstance(r, Artifact)}
    assert ["evidence.json", "folder"] == sorted(f.path for f in client.list_artifacts(run_id))


def test_what_belongs_to_no_run_is_refused_and_the_rest_is_stored(
    home: Path, sqlite_uri: str
) -> None:
    def odd() -> None:
        flowledger.log_metric("x", 1, run_id="f" * 32)
        with flowledger.job("j") as job:
            job.log_text("x", "../outside.txt")

    sink = opened(sqlite_uri, "/nonexistent/mlruns")
    refused = sink.write(recorded(odd))
    sink.close()
    assert [0, 2] == [refusal.place for refusal in refused]
    assert "there is no run" in refused[0].reason
    assert "no path of an artifact" in refused[1].reason


def test_a_call_that_says_it_is_in_a_trace_that_is_nowhere_is_stored_all_the_same(
    home: Path, sqlite_uri: str
) -> None:
    place = Place(root_id="e" * 32, parent_id="e" * 32)
    sink = opened(sqlite_uri, "/nonexistent/mlruns")
    assert [] == sink.write([encode(a_call(place=place))])
    sink.close()
    assert 1 == len(rows(sqlite_uri)["spans"])


def test_a_log_that_arrives_before_its_job_waits_in_its_run(home: Path, sqlite_uri: str) -> None:
    payloads = recorded(work)
    sink = opened(sqlite_uri, "/nonexistent/mlruns")
    assert [] == sink.write([p for p in payloads if isinstance(decode(p), Logged)])
    assert [] == sink.write([p for p in payloads if not isinstance(decode(p), Logged | Artifact)])
    sink.close()
    client = MlflowClient(tracking_uri=sqlite_uri)
    [experiment] = client.search_experiments(filter_string="name = 'pipeline'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {"process", "retrieval", "analysis", "ask"} == runs.keys()
    assert {"FINISHED"} == {run.info.status for run in runs.values()}
    assert 5.0 == runs["retrieval"].data.metrics["snippets"]


def test_plain_mlflow_gets_runs_and_artifacts(home: Path, tmp_path: Path) -> None:
    uri = (tmp_path / "mlruns").as_uri()
    payloads = recorded(work)
    sink = opened(uri, "")
    assert [] == sink.write(payloads)
    client = MlflowClient(tracking_uri=uri)
    [experiment] = client.search_experiments(filter_string="name = 'pipeline'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs["process"].info.run_id == runs["retrieval"].data.tags["mlflow.parentRunId"]
    assert runs["analysis"].info.run_id == runs["ask"].data.tags["mlflow.parentRunId"]
    assert "FINISHED" == runs["process"].info.status
    files = client.list_artifacts(runs["process"].info.run_id)
    assert ["evidence.json", "folder"] == sorted(file.path for file in files)


KILLED = """
import flowledger, os, signal
with flowledger.job("process", feature="pipeline") as job, job.stage("analysis") as stage:
    stage.log_metric("snippets", 3)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_job_killed_inside_a_stage_is_there_as_killed_with_all_that_was_logged(
    home: Path, database_uri: str
) -> None:
    environ = {**os.environ, "MLFLOW_TRACKING_URI": database_uri, "FLOWLEDGER_COLLECTOR": "off"}
    done = subprocess.run([sys.executable, "-c", KILLED], env=environ)
    assert -signal.SIGKILL == done.returncode
    collect = [sys.executable, "-m", "flowledger", "collect", "--once"]
    subprocess.run(collect, env=environ, check=True, capture_output=True)
    client = MlflowClient(tracking_uri=database_uri)
    [experiment] = client.search_experiments(filter_string="name = 'pipeline'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {"process": "KILLED", "analysis": "KILLED"} == {
        name: run.info.status for name, run in runs.items()
    }
    assert all(run.info.end_time >= run.info.start_time for run in runs.values())
    [trace] = client.search_traces(locations=[experiment.experiment_id])
    assert "ERROR" == trace.info.state
    assert 3.0 == runs["analysis"].data.metrics["snippets"]
