"""Artifacts on S3: through the server's proxy, and from its own hands into the bucket."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import flowledger
from tests.servers import mlflow_server

OURS = ("--app-name", "flowledger")


@pytest.mark.parametrize("direct", [False, True], ids=["through the proxy", "by their address"])
def test_artifacts_of_a_job_reach_the_bucket_and_are_read_again(
    home: Path, sqlite_uri: str, tmp_path: Path, bucket: Any, direct: bool
) -> None:
    store = ["--artifacts-destination", "s3://artifacts/flow"]
    if direct:  # clients are told the bucket's own address, and need its keys
        store = ["--no-serve-artifacts", "--default-artifact-root", "s3://artifacts/flow"]
    with mlflow_server(sqlite_uri, tmp_path, *OURS, *store) as url:
        flowledger.configure(tracking_uri=url)
        with flowledger.job("nightly", feature="reports") as job:
            flowledger.log_text("42 rows", "out/summary.txt")
        assert flowledger.flush(60)
        client = MlflowClient(url)
        experiment = client.get_experiment_by_name("reports")
        assert experiment is not None
        kind = "s3://artifacts" if direct else "mlflow-artifacts:"
        assert experiment.artifact_location.startswith(kind)
        [run] = client.search_runs([experiment.experiment_id])
        fetched = client.download_artifacts(run.info.run_id, "out/summary.txt", str(tmp_path))
        assert "42 rows" == Path(fetched).read_text()
        assert job is not None
    [key] = [one.key for one in bucket.objects.all() if run.info.run_id in one.key]
    assert key.startswith("flow/")
    assert key.endswith(f"{run.info.run_id}/artifacts/out/summary.txt")
