"""MLflow behind our routes is MLflow unchanged: pages, REST, artifacts, OTLP."""

import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from flowledger.errors import FlowledgerError
from flowledger.server.analytics import analytics_router
from flowledger.store.http import CALLS_PATH
from flowledger.testing.processes import serving
from tests.calls import a_call
from tests.server_client import Server, running
from tests.servers import free_port


@pytest.fixture(scope="module")
def server(empty_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers over SQLite."""
    folder = tmp_path_factory.mktemp("mlflow")
    shutil.copy(empty_sqlite, folder / "mlflow.db")
    with running(f"sqlite:///{folder / 'mlflow.db'}", folder) as server:
        yield server


@pytest.fixture
def client(server: Server) -> MlflowClient:
    """MLflow's own client."""
    return MlflowClient(tracking_uri=server.url)


def test_an_app_of_ones_own_passes_the_analytics_on_to_the_server(server: Server) -> None:
    own = FastAPI()
    own.include_router(analytics_router(server.url))
    with TestClient(own) as app:
        for path in ("mlflow/overview?days=0", "mlflow/health"):
            there = server.get(f"/api/analytics/{path}")
            here = app.get(f"/api/analytics/{path}")
            assert (there.status, there.json()) == (here.status_code, here.json())
        assert 405 == app.post("/api/analytics/mlflow/overview").status_code


def test_an_app_of_ones_own_says_why_its_server_tells_nothing(plain_page: str) -> None:
    for url, reason in (
        (plain_page, "start it with `flowledger server`"),
        (f"http://someone:secret@127.0.0.1:{free_port()}", "does not answer now"),
    ):
        own = FastAPI()
        own.include_router(analytics_router(url))
        with TestClient(own) as app:
            answer = app.get("/api/analytics/mlflow/overview")
        assert (503, True) == (answer.status_code, reason in answer.json()["detail"])
        assert "secret" not in answer.text


@pytest.fixture
def plain_page(tmp_path: Path) -> Iterator[str]:
    """A server that knows nothing of ours, as a plain MLflow server does."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with serving(command, url, tmp_path / "page.log"):
        yield url


def test_a_server_is_not_taken_for_another_one_in_its_place(
    plain_page: str, tmp_path: Path
) -> None:
    with (
        pytest.raises(FlowledgerError, match="take another port"),
        serving([sys.executable, "-c", ""], plain_page, tmp_path / "log"),
    ):
        pass


def test_a_server_that_ends_at_once_tells_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with (
        pytest.raises(FlowledgerError, match="no such thing"),
        serving(command, f"http://127.0.0.1:{free_port()}", tmp_path / "log"),
    ):
        pass


def test_runs_go_in_and_come_out(client: MlflowClient) -> None:
    run = client.create_run(client.create_experiment("plain runs"), tags={"kind": "own"})
    client.log_batch(run.info.run_id, [Metric("score", 0.5, 1, 0)], [Param("top", "1")])
    client.set_terminated(run.info.run_id)
    [found] = client.search_runs([run.info.experiment_id], "metrics.score > 0.4")
    assert ({"score": 0.5}, {"top": "1"}) == (found.data.metrics, found.data.params)
    assert ("FINISHED", "own") == (found.info.status, found.data.tags["kind"])


def test_artifacts_go_through_the_server(client: MlflowClient, tmp_path: Path) -> None:
    run = client.create_run(client.create_experiment("artifacts"))
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(range(256)) * (20 << 12))  # 20 MiB: more than ingest would take
    client.log_artifact(run.info.run_id, str(large))
    client.log_text(run.info.run_id, "grün", "notes/a.txt")
    assert ["large.bin", "notes"] == [
        found.path for found in client.list_artifacts(run.info.run_id)
    ]
    fetched = client.download_artifacts(run.info.run_id, "large.bin", str(tmp_path / "."))
    assert large.read_bytes() == Path(fetched).read_bytes()


def test_runs_of_ours_take_artifacts_too(server: Server, client: MlflowClient) -> None:
    call = a_call()
    assert 200 == server.post_calls([call]).status
    client.log_text(call.id, "kept", "note.txt")
    assert ["note.txt"] == [found.path for found in client.list_artifacts(call.id)]


def test_traces_come_by_otlp(server: Server, client: MlflowClient) -> None:
    experiment = client.create_experiment("otlp")
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = OTLPSpanExporter(
        f"{server.url}/v1/traces", headers={"x-mlflow-experiment-id": experiment}
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span("asked by otlp"):
        pass
    provider.shutdown()
    [trace] = client.search_traces(locations=[experiment])
    assert ["asked by otlp"] == [span.name for span in trace.data.spans]


def test_the_pages_and_the_version_are_mlflows(server: Server) -> None:
    page, version = server.get("/"), server.get("/version")
    assert (200, True) == (page.status, b"<title>MLflow</title>" in page.data)
    assert (200, mlflow.__version__) == (version.status, version.data.decode())
    assert b"OK" == server.get("/health").data


def test_mlflows_first_page_leads_to_the_dashboard(server: Server) -> None:
    page = server.get("/")
    assert str(len(page.data)) == page.headers["Content-Length"]
    [place] = re.findall(rb'<a href="([^"]+)"[^>]*>Ledger</a></body>', page.data)
    assert (b"/ledger", 200) == (place, server.get(place.decode()).status)


def test_paths_beside_ours_are_mlflows(server: Server) -> None:
    """MLflow has no documentation of its own that ours could hide."""
    beside = ("/docs", "/openapi.json", "/api/flowledger", "/api/flowledger/v10/calls", "/metricsx")
    answers = [server.get(path) for path in beside]
    assert [404] * len(beside) == [answer.status for answer in answers]
    assert [] == [answer.data for answer in answers if b"detail" in answer.data]


def test_paths_among_ours_answer_as_ours_do(server: Server) -> None:
    missing, wrong_method = server.get("/api/flowledger/v1/nothing"), server.get(CALLS_PATH)
    assert (404, {"detail": "Not Found"}) == (missing.status, missing.json())
    assert (405, {"detail": "Method Not Allowed"}) == (wrong_method.status, wrong_method.json())


@pytest.mark.parametrize("path", ["/api/flowledger/v1/health", "/metrics", "/api/2.0/mlflow/x"])
def test_a_host_that_is_not_ours_is_refused_everywhere(server: Server, path: str) -> None:
    answer = server.get(path, Host="evil.example")
    assert (403, True) == (answer.status, b"Invalid Host header" in answer.data)


@pytest.mark.parametrize("path", [CALLS_PATH, "/api/2.0/mlflow/experiments/create"])
def test_a_page_of_another_origin_cannot_write_anywhere(server: Server, path: str) -> None:
    answer = server.ask("POST", path, body=b"{}", headers={"Origin": "https://evil.example"})
    assert (403, b"Cross-origin request blocked") == (answer.status, answer.data)


def test_a_request_that_is_no_http_is_answered_and_no_harm_is_done(server: Server) -> None:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
    assert 200 == server.get("/health").status


def test_the_openapi_document_describes_every_route_of_ours(server: Server) -> None:
    document = server.get("/api/openapi.json").json()
    paths = {path for path, methods in document["paths"].items() for _ in methods}
    assert {
        CALLS_PATH,
        "/api/flowledger/v1/health",
        "/api/flowledger/v1/ready",
        "/metrics",
    } <= paths
    assert not any(path.startswith("/api/2.0") for path in paths)
    call = document["components"]["schemas"]["Call"]
    assert ([], True) == (call["required"], {"prompt", "usage"} <= set(call["properties"]))
    answers = document["paths"][CALLS_PATH]["post"]["responses"]
    assert {"200", "400", "401", "403", "408", "413", "415", "422", "429", "500", "503"} == set(
        answers
    )
    assert "securitySchemes" not in document["components"]  # nobody is asked here


def test_the_documentation_is_a_page_that_asks_nobody_else_for_anything(server: Server) -> None:
    page = server.get("/api/docs").data.decode()
    assert f"<code>POST {CALLS_PATH}</code>" in page
    assert [] == [word for word in ("<script", "http://", "https://", "@import") if word in page]
