"""`/v1/traces`: MLflow keeps every span, and the ledger has the calls of models among them."""

import gzip
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from mlflow import MlflowClient
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.requests import Request
from starlette.responses import Response

from flowledger import config
from flowledger.integrations.genai import call_id
from flowledger.questions import Ledger
from flowledger.server.metrics import Metrics
from flowledger.server.otlp import Otlp
from flowledger.server.parts import make_parts
from flowledger.server.settings import ServerSettings
from tests.calls import NOW_NS
from tests.server_client import Server, rows, running
from tests.test_genai_spans import ARGUMENTS, ASKED, CURRENT, OPENINFERENCE
from tests.test_server_ingest import peak_memory


@pytest.fixture(scope="module")
def server(empty_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers over SQLite that store two calls at once."""
    folder = tmp_path_factory.mktemp("otlp")
    shutil.copy(empty_sqlite, folder / "mlflow.db")
    with running(f"sqlite:///{folder / 'mlflow.db'}", folder, max_records=2) as server:
        yield server


@pytest.fixture
def experiment(server: Server, request: pytest.FixtureRequest) -> str:
    """The id of an experiment of this test's own."""
    return str(MlflowClient(server.url).create_experiment(request.node.name))


def finished(*attributes: dict[str, Any]) -> list[ReadableSpan]:
    """A trace of a web request, and spans with these attributes inside."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("GET /answer"):
        for some in attributes:
            tracer.start_span("chat gpt-4o", attributes=some).end()
    return list(memory.get_finished_spans())


def export(server: Server, experiment: str, spans: list[ReadableSpan]) -> SpanExportResult:
    """Send spans as any application does, compressed."""
    exporter = OTLPSpanExporter(
        f"{server.url}/v1/traces",
        headers={"x-mlflow-experiment-id": experiment},
        compression=Compression.Gzip,
        timeout=60,  # the first spans of all wait for what MLflow loads then
    )
    return exporter.export(spans)


def calls(server: Server, experiment: str) -> list[dict[str, Any]]:
    """What the ledger has of an experiment."""
    return rows(server.uri, f"SELECT * FROM llm_calls WHERE experiment_id = {experiment}")


def test_a_call_from_the_real_exporter_is_in_the_ledger_and_its_trace_in_mlflow(
    server: Server, experiment: str
) -> None:
    spans = finished(CURRENT, OPENINFERENCE)
    assert SpanExportResult.SUCCESS is export(server, experiment, spans)
    stored = calls(server, experiment)
    assert [("shop", "gpt-4o", 9, 4)] * 2 == [
        (row["feature"], row["model_asked"], row["input_tokens"], row["output_tokens"])
        for row in stored
    ]
    assert all(row["cost_usd"] > 0 for row in stored)
    client = MlflowClient(server.url)
    [trace] = client.search_traces(locations=[experiment])
    assert 3 == len(trace.data.spans)
    runs = client.search_runs([experiment])
    assert {row["id"] for row in stored} == {run.info.run_id for run in runs}
    named = {f"tr-{run.data.tags['otel.trace_id']}" for run in runs}
    assert {trace.info.trace_id} == named


def test_prompt_and_response_are_kept_without_a_second_trace(
    server: Server, experiment: str
) -> None:
    export(server, experiment, finished(CURRENT))
    [row] = calls(server, experiment)
    with Ledger(server.uri) as ledger:
        stored = ledger.call(row["id"])
    assert (ASKED, "Ho", None) == (stored.content.prompt, stored.content.response, stored.trace_id)
    assert [ARGUMENTS] == [call.arguments for call in stored.content.tool_calls]


def test_a_batch_sent_twice_is_stored_once(server: Server, experiment: str) -> None:
    spans = finished(CURRENT)
    for _ in range(2):
        assert SpanExportResult.SUCCESS is export(server, experiment, spans)
    assert 1 == len(calls(server, experiment))
    assert 1 == len(MlflowClient(server.url).search_traces(locations=[experiment]))


def test_spans_without_a_model_are_mlflows_alone(server: Server, experiment: str) -> None:
    export(server, experiment, finished({"http.request.method": "GET"}))
    assert [] == calls(server, experiment)
    assert 1 == len(MlflowClient(server.url).search_traces(locations=[experiment]))


def as_json(attributes: dict[str, Any], span_id: str = "cd" * 8) -> bytes:
    pairs = [
        {"key": key, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": v}}
        for key, v in attributes.items()
        if isinstance(v, int | str)
    ]
    span = {
        "traceId": "ab" * 16,
        "spanId": span_id,
        "name": "chat",
        "startTimeUnixNano": str(NOW_NS),
        "endTimeUnixNano": str(NOW_NS + 5_000_000),
        "attributes": pairs,
        "status": {"code": 2, "message": "slow down"},
    }
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


@pytest.mark.parametrize("compressed", [True, False])
def test_json_of_any_language_is_taken_too(
    server: Server, experiment: str, compressed: bool
) -> None:
    headers = {"Content-Type": "application/json", "x-mlflow-experiment-id": experiment}
    span_id = "ce" * 8 if compressed else "cf" * 8
    body = as_json(OPENINFERENCE, span_id)
    if compressed:
        body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
    answer = server.ask("POST", "/v1/traces", body=body, headers=headers)
    assert 200 == answer.status, answer.data
    [row] = calls(server, experiment)
    assert (call_id("ab" * 16, span_id, NOW_NS), "ana") == (row["id"], row["user_id"])
    assert (0, "slow down", 5.0) == (row["success"], row["error_message"], row["latency_ms"])


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff", {"x-mlflow-experiment-id": "0"}, 400),
        (as_json(CURRENT), {}, 422),
        (as_json(CURRENT), {"x-mlflow-experiment-id": "0", "Content-Type": "text/plain"}, 400),
    ],
    ids=["damaged", "no experiment", "no such type"],
)
def test_what_mlflow_refuses_is_refused_in_its_words(
    server: Server, body: bytes, headers: dict[str, str], status: int
) -> None:
    headers = {"Content-Type": "application/json", **headers}
    before = rows(server.uri, "SELECT count(*) AS n FROM llm_calls")
    answer = server.ask("POST", "/v1/traces", body=body, headers=headers)
    assert (status, True) == (answer.status, b"detail" in answer.data)
    assert before == rows(server.uri, "SELECT count(*) AS n FROM llm_calls")


def test_a_batch_of_more_calls_than_are_stored_at_once_is_stored_whole(
    server: Server, experiment: str
) -> None:
    assert SpanExportResult.SUCCESS is export(server, experiment, finished(*[CURRENT] * 5))
    assert 5 == len(calls(server, experiment))


def test_what_is_stored_counts_in_the_metrics(server: Server, experiment: str) -> None:
    before = server.metrics()
    export(server, experiment, finished({**CURRENT, "flowledger.feature": "counted"}))
    new = {k: v for k, v in server.metrics().items() if before.get(k) != v and "counted" in k}
    assert [] != [name for name, value in new.items() if value == 1]


class Took:
    """Stands where MLflow does and takes every batch, over a database that is away."""

    def __init__(self, **settings: Any) -> None:
        away = config.load({}, tracking_uri="postgresql://nobody@127.0.0.1:1/none")
        self.parts = make_parts(away, ServerSettings(**settings), Metrics(20), None)
        self.client = TestClient(Otlp(self.answer, self.parts, "/static/v1/traces"))

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        await Response(await Request(scope, receive).body(), 200)(scope, receive, send)

    def post(self, body: bytes, **headers: str) -> Any:
        named = {"content-type": "application/json", "x-mlflow-experiment-id": "0"}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post("/static/v1/traces", content=body, headers={**named, **given})


def test_a_client_sends_again_what_the_ledger_could_not_take() -> None:
    answer = Took().post(as_json(CURRENT))
    assert (503, "1") == (answer.status_code, answer.headers["retry-after"])


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"resourceSpans": [{"scopeSpans": 7, "gen_ai.": 1}]}', {}),
        (b'["gen_ai."]', {}),
        (b"[" * 2000 + b'"gen_ai."', {}),
        (as_json(CURRENT).replace(b"abab", b"zzzz"), {}),
        (as_json({"http.request.method": "GET"}), {}),
    ],
    ids=["number", "list", "deep", "no hex", "no model"],
)
def test_what_only_mlflow_can_read_is_mlflows_alone(body: bytes, headers: dict[str, str]) -> None:
    answer = Took().post(body, **headers)
    assert (200, body) == (answer.status_code, answer.content)


RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
BOMB = bytes(256 << 20)


@pytest.mark.parametrize(
    ("body", "encoding", "status", "sentence"),
    [
        (b"[" + b" " * (16 << 20), "identity", 413, "send at most 16777216 bytes at once"),
        (gzip.compress(BOMB, 1), "gzip", 413, "bytes at once, inflated: split the batch"),
        (zlib.compress(BOMB, 1), "deflate", 413, "bytes at once, inflated: split the batch"),
        (RAW.compress(BOMB) + RAW.flush(), "deflate", 413, "bytes at once, inflated: split"),
        (as_json(CURRENT), "br", 415, "content encoding 'br': send gzip or deflate"),
        (gzip.compress(BOMB, 1), "gzip, identity", 415, "content encoding 'gzip, identity'"),
    ],
    ids=["plain", "gzip", "deflate", "raw deflate", "unknown", "two"],
)
@pytest.mark.parametrize("kind", ["application/json", "application/x-protobuf"])
def test_a_body_is_bounded_before_mlflow_reads_or_inflates_it(
    server: Server, kind: str, body: bytes, encoding: str, status: int, sentence: str
) -> None:
    about = {"Content-Type": kind, "x-mlflow-experiment-id": "0", "Content-Encoding": encoding}
    peak = peak_memory(server)
    answer = server.ask("POST", "/v1/traces", body=body, headers=about)
    assert (status, True) == (answer.status, sentence in answer.json()["detail"]), answer.data
    assert peak_memory(server) - peak < 128 << 20


@pytest.mark.parametrize("raw", [True, False])
def test_spans_that_are_deflated_are_stored(server: Server, experiment: str, raw: bool) -> None:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS if raw else zlib.MAX_WBITS)
    body = deflate.compress(as_json(CURRENT, "ca" * 8 if raw else "cb" * 8)) + deflate.flush()
    about = {
        "Content-Type": "application/json",
        "x-mlflow-experiment-id": experiment,
        "Content-Encoding": "deflate",
    }
    answer = server.ask("POST", "/v1/traces", body=body, headers=about)
    assert (200, 1) == (answer.status, len(calls(server, experiment))), answer.data


def test_a_batch_that_finds_no_room_is_to_be_sent_again() -> None:
    body = gzip.compress(as_json(CURRENT) + b" " * 9000)
    took = Took(max_waiting_bytes=9000)
    answer = took.post(body, content_encoding="gzip")
    assert (429, "1") == (answer.status_code, answer.headers["retry-after"])
    assert 200 == took.post(as_json({"http.request.method": "GET"})).status_code
