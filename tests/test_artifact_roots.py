"""A server writes artifacts below its own root, wherever an experiment says they go."""

import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flowledger.records import Artifact, Job, encode, new_id
from flowledger.store.bulk import BulkSink, open_bulk
from flowledger.store.uploads import is_below
from tests.server_client import rows
from tests.test_store import destination


def records(experiment: str) -> list[bytes]:
    """A job and a file of it."""
    about: dict[str, Any] = {"producer": new_id(), "experiment": experiment}
    job = Job(**about, id=new_id(), seq=1, start_ns=time.time_ns(), name="job")
    file = Artifact(**about, id=new_id(), seq=2, run_id=job.id, path="a.txt", content=b"secret")
    return [encode(job), encode(file)]


def opened(uri: str, *roots: str) -> BulkSink:
    sink = open_bulk(destination(uri), artifact_roots=roots)
    assert sink is not None
    return sink


def test_an_artifact_goes_where_the_administrator_said_and_nowhere_else(
    sqlite_uri: str, tmp_path: Path
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "inside").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)
    locations = {
        "inside": f"file://{root}/inside",
        "outside": str(outside),
        "a file uri": f"file://{outside}",
        "a link": str(root / "link"),
        "up": f"file://{root}/inside/../../outside",
        "encoded": f"file://{root}/%2e%2e/outside",
        "a sibling": f"{root}-more",
        "a bucket": "s3://somebody-elses/keys",
        "another server": "mlflow-artifacts://192.0.2.1:80/x",
    }
    client = MlflowClient(sqlite_uri)
    for name, location in locations.items():
        client.create_experiment(name, artifact_location=location)
    sink = opened(sqlite_uri, str(root), "mlflow-artifacts:/")
    refused = {name for name in locations if sink.write(records(name))}
    sink.write([])
    sink.close()
    assert locations.keys() - {"inside"} == refused
    written = list(tmp_path.rglob("a.txt"))
    assert [True] == [path.is_relative_to(root / "inside") for path in written]
    assert [] == rows(sqlite_uri, "SELECT * FROM llm_artifacts")


def test_what_waits_for_a_collector_is_left_to_it(sqlite_uri: str, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.write_text("no folder yet")
    client = MlflowClient(sqlite_uri)
    client.create_experiment("theirs", artifact_location=str(theirs))
    client.create_experiment("ours", artifact_location=str(ours))
    collector, server = opened(sqlite_uri), opened(sqlite_uri, str(ours))
    assert [] == collector.write(records("theirs"))
    assert [] == server.write(records("ours"))
    [waiting] = rows(sqlite_uri, "SELECT refused, reason FROM llm_artifacts")
    assert (0, True) == (waiting["refused"], "Error" in waiting["reason"])
    theirs.unlink()
    later = opened(sqlite_uri)
    later.write([])
    for sink in (collector, server, later):
        sink.close()
    assert (1, 1) == (len([*theirs.rglob("a.txt")]), len([*ours.rglob("a.txt")]))


@pytest.mark.parametrize(
    ("folder", "root", "below"),
    [
        ("s3://bucket/a/1", "s3://bucket/a", True),
        ("s3://bucket/a", "s3://bucket/a/", True),
        ("s3://bucket/ab", "s3://bucket/a", False),
        ("s3://other/a/1", "s3://bucket/a", False),
        ("s3://bucket/a/../b", "s3://bucket/a", False),
        ("s3://bucket/a/%2e%2e/b", "s3://bucket/a", False),
        ("s3://bucket/a/1?versionId=2", "s3://bucket/a", False),
        ("gs://bucket/a/1", "s3://bucket/a", False),
        ("mlflow-artifacts:/3/x", "mlflow-artifacts:/", True),
        ("mlflow-artifacts:/../etc", "mlflow-artifacts:/", False),
        ("mlflow-artifacts://evil/3", "mlflow-artifacts:/", False),
        ("/srv/mlruns/1", "file:///srv/mlruns", True),
        ("file:///srv/mlruns/1", "/srv/mlruns", True),
        ("/srv/mlruns-more/1", "/srv/mlruns", False),
        ("file://host/srv/mlruns/1", "/srv/mlruns", False),
    ],
)
def test_what_is_below_a_root(folder: str, root: str, below: bool) -> None:
    assert below is is_below(folder, [root])
