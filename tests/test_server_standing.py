"""How the ledger stands, as `/metrics` tells it: exact over every call, whichever way it came."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from flowledger import config
from flowledger.questions import Ledger
from flowledger.questions.rows import Slice
from flowledger.records import Call, Outcome, Producer, encode
from flowledger.server.database import Database
from flowledger.server.standing import Disks, StoreUp, ask_standing, folded
from flowledger.store.bulk import open_bulk
from tests.calls import a_call
from tests.server_client import PRODUCER, Server, running

MINUTE = 60 * 10**9


def ago(minutes: float, **fields: object) -> Call:
    """A call that began so long ago."""
    return a_call(start_ns=time.time_ns() - round(minutes * MINUTE), **fields)


FAILED = Outcome(success=False, error_type="Timeout")


def some_calls() -> list[Call]:
    return [
        ago(1, duration_ns=10**9, cost_usd=0.5),
        ago(2, duration_ns=2 * 10**9, cost_usd=0.25, outcome=FAILED),
        ago(
            3,
            feature="search",
            duration_ns=30 * 10**9,
            cost_usd=None,
            model="unheard-of",
            model_asked=None,
        ),
        ago(4, feature=None),
        ago(30, cost_usd=2.0),
        ago(90, feature="night", cost_usd=4.0),
        ago(25 * 60, feature="gone", cost_usd=8.0),
    ]


@pytest.fixture
def database(database_uri: str) -> Iterator[Database]:
    found = Database(database_uri)
    yield found
    found.close()


def store(uri: str, calls: Sequence[Call]) -> None:
    sink = open_bulk(config.load(tracking_uri=uri).destination)
    assert sink is not None
    assert [] == sink.write([PRODUCER, *map(encode, calls)], redelivered=False)
    sink.close()


def told(metrics: Sequence[Metric]) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def test_it_counts_the_calls_of_each_feature_in_each_window(
    home: Path, database_uri: str, database: Database
) -> None:
    calls = some_calls()
    store(database_uri, calls)
    with Ledger(database_uri) as ledger:
        found = told(list(ask_standing(ledger, database, 20).collect()))
    recent = {key[1:]: value for key, value in found.items() if key[0] == "flowledger_recent_calls"}
    assert {
        ("support", "success"): 1,
        ("support", "failed"): 1,
        ("search", "success"): 1,
        ("search", "failed"): 0,
        ("none", "success"): 1,
        ("none", "failed"): 0,
    } == recent
    assert 2.75 == found["flowledger_hour_cost_usd", "support"]
    assert 0 == found["flowledger_hour_cost_usd", "search"]
    assert pytest.approx(30, rel=0.02) == found["flowledger_recent_latency_seconds", "0.99"]
    last = {key[1] for key in found if key[0] == "flowledger_last_call_timestamp_seconds"}
    assert {"support", "search", "none", "night"} == last
    night = found["flowledger_last_call_timestamp_seconds", "night"]
    assert calls[5].start_ns // 1_000_000 / 1000 == night
    assert found["flowledger_database_bytes",] > 100_000


def test_what_applications_dropped_is_told(
    home: Path, database_uri: str, database: Database
) -> None:
    gap = Producer(id="1" * 32, producer="1" * 32, host="here", pid=1, version="1")
    store(database_uri, some_calls())
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO llm_gaps (producer_id, first_seq, last_seq, dropped, reason, seen_ms)"
            f" VALUES ('{gap.id}', 3, 9, 7, 'disk full', 1)"
        )
    with Ledger(database_uri) as ledger:
        found = told(list(ask_standing(ledger, database, 20).collect()))
    assert 7 == found["flowledger_dropped_records",]


def a_slice(feature: str | None, calls: int) -> Slice:
    zero = dict.fromkeys(Slice.__struct_fields__, 0)
    return Slice(**{**zero, "value": feature, "calls": calls, "last_ms": calls})  # type: ignore[arg-type]


def test_features_beyond_the_first_so_many_are_one() -> None:
    names = [None, "other", *"abcde"]
    found = folded([a_slice(name, 10 - place) for place, name in enumerate(names)], 3)
    assert {"none": 10, "other": 9 + 5 + 4, "a": 8, "b": 7, "c": 6} == {
        name: feature.calls for name, feature in found.items()
    }
    assert 9 == found["other"].last_ms


def test_a_long_name_is_cut_and_those_that_are_then_alike_are_one() -> None:
    found = folded([a_slice("x" * 100 + end, 1) for end in "ab"], 3)
    assert {"x" * 100: 2} == {name: feature.calls for name, feature in found.items()}


def test_the_disks_it_writes_to_are_measured_and_no_others(tmp_path: Path) -> None:
    here = Disks.of_server(f"sqlite:///{tmp_path}/a.db", str(tmp_path / "later/on"), str(tmp_path))
    away = Disks.of_server("postgresql://db/flow", "s3://bucket/folder", str(tmp_path))
    places = [sorted({key[1] for key in told(list(disks.collect()))}) for disks in (here, away)]
    assert [["artifacts", "database", "numbers"], ["numbers"]] == places
    measured = told(list(here.collect()))
    free = measured["flowledger_disk_free_bytes", "database"]
    assert 0 < free <= measured["flowledger_disk_size_bytes", "database"]


def test_without_a_database_only_that_is_told() -> None:
    registry = CollectorRegistry()
    registry.register(StoreUp(False))
    lines = generate_latest(registry).decode().splitlines()
    assert ["flowledger_store_up 0.0"] == [line for line in lines if not line.startswith("#")]


def test_every_worker_says_the_same(sqlite_uri: str, tmp_path: Path) -> None:
    store(sqlite_uri, some_calls())  # before the server is there, as a collector would
    with running(sqlite_uri, tmp_path) as server:
        server.post_calls([ago(1, feature="over HTTP", cost_usd=0.125)])
        first = standing_of(server)
        others = [standing_of(server) for _ in range(6)]
    assert 0.125 == first["flowledger_hour_cost_usd{feature=over HTTP}"]
    assert 2.75 == first["flowledger_hour_cost_usd{feature=support}"]
    assert [first] * 6 == others


def standing_of(server: Server) -> dict[str, float]:
    names = ("flowledger_hour", "flowledger_last", "flowledger_recent", "flowledger_dropped")
    return {name: value for name, value in server.metrics().items() if name.startswith(names)}
