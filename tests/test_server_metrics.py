"""/metrics: what it says is what the ledger holds, whichever worker answers."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from prometheus_client.parser import text_string_to_metric_families

from flowledger.records import Actor, Call, Kind, Outcome, Usage
from flowledger.server.labels import COMBINATIONS, OTHER, Labels
from tests.calls import a_call
from tests.server_client import Server, rows, running

NAMED = 3
AWKWARD = 'a "quoted"\nname\\ with {all} of = it, ü'


@pytest.fixture(scope="module")
def server(empty_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers that let three values of each label keep their names."""
    folder = tmp_path_factory.mktemp("metrics")
    shutil.copy(empty_sqlite, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with running(uri, folder, label_values=NAMED) as server:
        server.post_calls([a_call(feature=AWKWARD)])  # the first of them keep their names
        yield server


def total(samples: dict[str, float], name: str, *labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    return sum(
        value
        for sample, value in samples.items()
        if sample.partition("{")[0] == name and all(label in sample for label in labels)
    )


def test_the_numbers_are_those_of_the_ledger_and_the_same_from_every_worker(
    server: Server,
) -> None:
    before = server.metrics()
    batches = [
        [a_call(), a_call(outcome=Outcome(success=False, error_type="Timeout"))],
        [a_call(inner_calls=2, usage=Usage()), free_of_charge()],
        [a_call(model="gpt-4o-mini", actor=Actor(persona_id="critic"), feature=None)],
        [a_call(model=None, model_asked="no-such-model", usage=Usage(input_tokens=7))],
        [a_call(usage=Usage(input_tokens=100, output_tokens=10, source="estimated"))],
        *[[a_call(feature=f"feature {number}")] for number in range(10)],
    ]
    with ThreadPoolExecutor(4) as clients:
        assert {200} == {r.status for r in clients.map(server.post_calls, batches)}
        assert {200} == {r.status for r in clients.map(server.post_calls, batches)}  # known
    server.post(b"\xf1\x1e")
    server.post_json([{"feature": 1}, {"feature": "by hand", "model": "gpt-4o"}])
    MlflowClient(tracking_uri=server.url).create_experiment("empty")
    until_counted(server, "mlflow_requests_total{method=POST,route=mlflow api,status=200}")
    scrapes = [server.metrics() for _ in range(8)]  # answered by both workers
    for told in scrapes:
        check_against_the_ledger(server, told)
        check_requests({name: told[name] - before.get(name, 0) for name in told})
        assert bounded(told)
    counted = [
        told["mlflow_requests_total{method=GET,route=/metrics,status=200}"] for told in scrapes
    ]
    assert [counted[0] + number for number in range(8)] == counted


def free_of_charge() -> Call:
    """A retrieval: it asked no model and used nothing that has a price."""
    return a_call(kind=Kind.RETRIEVAL, model=None, model_asked=None, usage=Usage())


def until_counted(server: Server, sample: str) -> None:
    """A request is counted after its client has the answer."""
    deadline = time.monotonic() + 30
    while sample not in server.metrics() and time.monotonic() < deadline:
        time.sleep(0.1)


def check_against_the_ledger(server: Server, told: dict[str, float]) -> None:
    [stored] = rows(
        server.uri,
        "SELECT count(*) AS calls, sum(success) AS good, sum(input_tokens) AS tokens_in,"
        " sum(output_tokens) AS tokens_out, sum(cost_usd) AS cost,"
        " sum(estimated_cost_usd) AS estimated, sum(unpriced) AS unpriced,"
        " sum(latency_ms) / 1000 AS latency FROM llm_measured",
    )
    assert 17 == stored["calls"]  # without the one that groups others
    assert 2 == stored["unpriced"]  # no-such-model, and one by hand without tokens
    assert stored["calls"] == total(told, "flowledger_calls_total")
    assert stored["good"] == total(told, "flowledger_calls_total", "status=success")
    assert stored["tokens_in"] == total(told, "flowledger_tokens_total", "direction=input")
    assert stored["tokens_out"] == total(told, "flowledger_tokens_total", "direction=output")
    assert pytest.approx(stored["cost"]) == total(told, "flowledger_cost_usd_total")
    assert 0 < stored["estimated"] < stored["cost"]
    assert pytest.approx(stored["estimated"]) == total(told, "flowledger_estimated_cost_usd_total")
    assert stored["unpriced"] == total(told, "flowledger_unpriced_calls_total")
    assert stored["calls"] == total(told, "flowledger_call_latency_seconds_count")
    latency = total(told, "flowledger_call_latency_seconds_sum")
    assert pytest.approx(stored["latency"]) == latency
    assert stored["calls"] == told["flowledger_ingest_lag_seconds_count"]
    assert (1, 0) == (told["flowledger_store_up"], told["flowledger_ingest_batches_in_flight"])


def check_requests(grown: dict[str, float]) -> None:
    assert 31 == grown["flowledger_ingest_batches_total{status=200}"]
    assert 1 == grown["flowledger_ingest_batches_total{status=400}"]
    assert 1 == grown["flowledger_ingest_refused_records_total"]
    posts = "mlflow_requests_total{method=POST,route="
    assert 31 == grown[f"{posts}/api/flowledger/v1/calls,status=200}}"]
    assert 1 == grown[f"{posts}mlflow api,status=200}}"]
    durations = "mlflow_request_duration_seconds_count{method=POST,route="
    assert 32 == grown[f"{durations}/api/flowledger/v1/calls}}"]


def bounded(told: dict[str, float]) -> bool:
    """Each worker names three features and calls the rest `other`."""
    named = {
        sample.partition("feature=")[2].partition(",")[0]
        for sample in told
        if sample.startswith("flowledger_calls_total")
    }
    return {OTHER} < named and len(named - {OTHER, "none"}) <= 2 * NAMED


def test_prometheus_own_parser_reads_it(server: Server) -> None:
    answer = server.get("/metrics")
    families = list(text_string_to_metric_families(answer.data.decode()))
    [calls] = [family for family in families if family.name == "flowledger_calls"]
    assert AWKWARD in {sample.labels["feature"] for sample in calls.samples}
    assert str(answer.headers["Content-Type"]).startswith("text/plain")


def test_runs_under_way_and_experiments_are_counted_now_and_then(server: Server) -> None:
    client = MlflowClient(tracking_uri=server.url)
    client.create_run(client.create_experiment("own"))
    experiments = len(client.search_experiments())
    deadline = time.monotonic() + 90
    while (told := counts(server)) != (1, experiments) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert (1, experiments) == told


def counts(server: Server) -> tuple[float, float]:
    told = server.metrics()
    return told["mlflow_active_runs"], told["mlflow_experiments_total"]


values = st.none() | st.text(max_size=8)


@given(seen=st.lists(st.tuples(values, values), max_size=300), most=st.integers(1, 5))
def test_labels_are_bounded_whatever_is_seen(seen: list[Any], most: int) -> None:
    labels = Labels(most)
    given_out = {labels.of(model=model, feature=feature) for model, feature in seen}
    by_label = [{pair[place] for pair in given_out} for place in (0, 1)]
    assert all(len(names) <= most + 2 for names in by_label)  # and `none` and `other`
    assert len(given_out) <= COMBINATIONS * most + 1
    assert all(labels.of(model=m, feature=f) in given_out for m, f in seen)
