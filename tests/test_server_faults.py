"""A database that hangs, goes away and comes back: 429 and 503 with a sentence, nothing lost."""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flowledger.records import Call
from flowledger.store.rows import LEDGER
from tests.calls import a_call
from tests.conftest import _make_tables
from tests.server_client import Postgres, Server, running
from tests.test_store import ADVICE, UPGRADED, change, rows_of

READY = "/api/flowledger/v1/ready"
HEALTH = "/api/flowledger/v1/health"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def postgres(shared_folder: Path, postgres_server: str) -> Iterator[Postgres]:
    """Not the one that other tests use."""
    folder = tempfile.mkdtemp(prefix="flowledger-pg-")  # PostgreSQL's own user must reach it
    server = Postgres(folder)
    _make_tables(server.uri)
    yield server
    server.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker that stores one batch at a time, and lets none wait."""
    patience = {"sinks": 1, "batches_in_flight": 1, "store_seconds": 8, "question_seconds": 2}
    folder = tmp_path_factory.mktemp("faults")
    with running(postgres.uri, folder, workers=1, **patience) as server:
        yield server


def once(count: int) -> dict[str, int]:
    """What tables hold of so many calls that were stored once."""
    return {"llm_calls": count, "runs": count, "spans": count}


def until_stored(server: Server, calls: list[Call], refused: list[Any] | None = None) -> None:
    """Send a batch until it is taken, as a shipper does; notes the answers before that."""
    deadline = time.monotonic() + PATIENCE
    while (answer := server.post_calls(calls)).status != 200:
        assert "1" == answer.headers["Retry-After"]
        assert time.monotonic() < deadline, answer.data
        if refused is not None:
            refused.append((answer.status, answer.json()["detail"]))
        time.sleep(0.1)
    assert [] == answer.json()["refused"]


def test_a_database_that_hangs_is_answered_with_429_and_503_and_loses_nothing(
    server: Server, postgres: Postgres
) -> None:
    batches = [[a_call(), a_call()] for _ in range(3)]
    until_stored(server, [a_call()])
    with postgres.hanging():
        with ThreadPoolExecutor(3) as clients:
            answers = list(clients.map(server.post_calls, batches))
        told = {answer.status: answer.json()["detail"] for answer in answers}
        assert [429, 429, 503] == sorted(answer.status for answer in answers)
        assert {"1"} == {answer.headers["Retry-After"] for answer in answers}
        assert "the server has as much to do as it takes on" in told[429]
        assert "the database did not answer within 8 seconds" in told[503]
        assert 200 == server.get(HEALTH).status
        ready = server.get(READY)
        assert (503, "1") == (ready.status, ready.headers["Retry-After"])
        assert 0 == server.metrics()["flowledger_store_up"]
    for batch in batches:
        until_stored(server, batch)
        assert once(2) == server.stored(batch)
    assert 200 == server.get(READY).status


def test_a_database_that_is_away_is_answered_with_503_and_taken_up_again_by_itself(
    server: Server, postgres: Postgres
) -> None:
    batch = [a_call(), a_call()]
    until_stored(server, [a_call()])
    postgres.stop()
    try:
        answers = [server.post_calls(batch) for _ in range(3)]
        ready = server.get(READY)
    finally:
        postgres.start()
    sentence = "the database does not take calls now: keep the batch and send it again"
    assert [(503, sentence)] * 3 == [(a.status, a.json()["detail"]) for a in answers]
    assert (503, "not ready: the database does not answer") == (
        ready.status,
        ready.json()["detail"],
    )
    until_stored(server, batch)
    assert once(2) == server.stored(batch)
    assert 200 == server.get(READY).status


def test_a_database_that_another_mlflow_upgraded_is_answered_with_503_and_what_to_do(
    sqlite_uri: str, tmp_path: Path
) -> None:
    with running(sqlite_uri, tmp_path, workers=1) as server:
        until_stored(server, [a_call()])
        change(sqlite_uri, UPGRADED)
        answers = [server.post_calls([a_call()]), server.get(READY)]
        assert [503, 503] == [answer.status for answer in answers]
        told = [answer.json()["detail"] for answer in answers]
        assert [f"{ADVICE}: keep the batch and send it again", f"not ready: {ADVICE}"] == told
    assert [1, 1] == [len(rows_of(sqlite_uri, f"SELECT * FROM {t}")) for t in ("runs", LEDGER)]


@pytest.fixture(scope="module")
def replicas(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Server]]:
    """Two servers on one database."""
    folders = [tmp_path_factory.mktemp(f"replica-{number}") for number in (1, 2)]
    with (
        running(postgres.uri, folders[0], workers=1) as first,
        running(postgres.uri, folders[1], workers=1) as second,
    ):
        yield [first, second]


def test_a_database_that_goes_away_mid_request_loses_and_doubles_nothing(
    replicas: list[Server], postgres: Postgres
) -> None:
    batches: list[list[Call]] = []
    refused: list[tuple[int, str]] = []
    stop = threading.Event()

    def ship(server: Server) -> None:
        while not stop.is_set():
            batch = [a_call(experiment="mid-request") for _ in range(40)]
            until_stored(server, batch, refused)
            batches.append(batch)

    with ThreadPoolExecutor(4) as shippers:
        ships = [shippers.submit(ship, server) for server in replicas * 2]
        try:
            for _ in range(3):
                wait_for_more(batches)
                postgres.stop()
                wait_for_more(refused)
                postgres.start()
        finally:
            stop.set()
            postgres.start()
        for shipped in ships:
            shipped.result()
    assert {503} == {status for status, _ in refused}
    assert [] == [told for _, told in refused if "Traceback" in told or "psycopg" in told]
    for batch in batches:
        assert once(40) == replicas[0].stored(batch)


def wait_for_more(things: list[Any]) -> None:
    """Wait until each of four shippers has had its turn or two."""
    deadline, before = time.monotonic() + PATIENCE, len(things)
    while len(things) < before + 8:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_same_batch_sent_to_two_servers_at_once_is_stored_once(replicas: list[Server]) -> None:
    for _ in range(5):
        batch = [a_call(experiment="replicas") for _ in range(100)]
        with ThreadPoolExecutor(4) as clients:
            list(clients.map(until_stored, replicas * 2, [batch] * 4))
        assert once(100) == replicas[0].stored(batch)


def test_what_went_wrong_is_in_the_log_without_a_stack_or_a_prompt(server: Server) -> None:
    log = server.log.read_text()
    assert [] == [word for word in ("Traceback", "Where is my order") if word in log]
