"""Jobs and their files arrive once, whatever the database and the bucket do meanwhile."""

from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer

from flowledger.records import Artifact, decode
from tests.faults.processes import Host, Ledger
from tests.faults.test_database_down import Postgres, postgres  # noqa: F401 - a fixture
from tests.test_jobs import opened, recorded, work

JOB = """
import flowledger
with flowledger.job("process", feature="pipeline") as job:
    with job.stage("analysis") as stage:
        stage.log_metric("snippets", 3)
    flowledger.record(model="gpt-4o", prompt="why", response="so")
"""


def test_a_job_made_while_postgresql_is_stopped_arrives_whole(
    host: Host,
    postgres_uri: str,
    postgres: Postgres,  # noqa: F811
) -> None:
    postgres.stop()
    host.run("-c", JOB, uri=postgres_uri, collector="off")
    assert 0 < host.waiting()
    postgres.start()
    host.collect_once(postgres_uri)
    ledger = Ledger(postgres_uri)
    runs = ledger.rows("SELECT name, status FROM runs ORDER BY name")
    assert [("analysis", "FINISHED"), ("chat", "FINISHED"), ("process", "FINISHED")] == runs
    [(seqs,)] = ledger.rows("SELECT count(*) FROM llm_records")
    assert (6 - 1, 1) == (seqs, ledger.count())
    assert [] == host.rejected()


def test_artifacts_reach_a_bucket_once_it_answers(
    home: Path, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        for name, value in {
            "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        client = MlflowClient(tracking_uri=sqlite_uri)
        client.create_experiment("pipeline", "s3://flowledger-jobs/artifacts")
        sink = opened(sqlite_uri, "")
        payloads = recorded(work)
        assert [] == sink.write(payloads)  # there is no such bucket yet
        assert 2 == Ledger(sqlite_uri).count("llm_artifacts")
        assert 1 == Ledger(sqlite_uri).count()
        bucket = boto3.resource("s3", endpoint_url=f"http://{host}:{port}").Bucket(
            "flowledger-jobs"
        )
        bucket.create()
        sink._artifacts._try_at = 0.0  # type: ignore[attr-defined]
        assert [] == sink.write([])
        assert [] == sink.write(payloads, redelivered=True)
        sink.close()
        assert 0 == Ledger(sqlite_uri).count("llm_artifacts")
        [run_id] = {r.run_id for r in map(decode, payloads) if isinstance(r, Artifact)}
        folder = f"artifacts/{run_id}"
        expected = [f"{folder}/artifacts/evidence.json", f"{folder}/artifacts/folder/note.txt"]
        assert expected == sorted(one.key for one in bucket.objects.all())
    finally:
        server.stop()
