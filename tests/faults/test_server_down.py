"""A flowledger server that hangs or dies delays calls, and neither loses nor doubles one."""

import time
from pathlib import Path

import pytest

from tests.faults.processes import Host, Ledger, assert_unharmed, slow, stopped, until
from tests.servers import free_port, mlflow_server

OURS = ("--app-name", "flowledger")


@pytest.fixture
def server(tmp_path: Path) -> Host:
    """The host that the server runs on."""
    return Host(tmp_path, tmp_path / "server-home")


@pytest.mark.parametrize("seconds", [4, pytest.param(70, marks=slow)])
def test_calls_made_while_the_server_hangs_arrive_once(
    host: Host, server: Host, sqlite_uri: str, tmp_path: Path, seconds: float
) -> None:
    ledger = Ledger(sqlite_uri)
    with mlflow_server(sqlite_uri, tmp_path, *OURS) as url:
        application = host.start(url)
        application.ask("begin")
        until(ledger.count, "the first calls are stored")
        with stopped(server.processes()):
            time.sleep(seconds)
        told = application.ask("end")
        assert_unharmed(told)
        assert application.ask("flush")
        ledger.wait_for_once(told["calls"], host)
    assert [told["calls"]] == list(ledger.producers().values())


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=slow)])
def test_calls_made_while_there_is_no_server_arrive_once(
    host: Host, server: Host, sqlite_uri: str, tmp_path: Path, seconds: float
) -> None:
    ledger, port = Ledger(sqlite_uri), free_port()
    with mlflow_server(sqlite_uri, tmp_path, *OURS, port=port) as url:
        application = host.start(url)
        application.ask("begin", size=2000)
        until(ledger.count, "the first calls are stored")
        for process in server.processes():
            process.kill()
    time.sleep(seconds)
    with mlflow_server(sqlite_uri, tmp_path, *OURS, port=port):
        told = application.ask("end")
        assert_unharmed(told)
        assert application.ask("flush")
        ledger.wait_for_once(told["calls"], host)
    assert [told["calls"]] == list(ledger.producers().values())


def test_a_forked_child_ships_what_its_dead_parent_left(
    host: Host, sqlite_uri: str, tmp_path: Path
) -> None:
    ledger, port = Ledger(sqlite_uri), free_port()
    with mlflow_server(sqlite_uri, tmp_path, *OURS, port=port) as url:
        parent = host.start(url, journal_max_bytes=8 << 20)
        parent.ask("calls")
        assert parent.ask("flush")
    parent.ask("calls", count=1000, size=2000)  # fills a first segment and begins a second
    until(lambda: any("calls wait" in line for line in parent.warnings()), "the outage is noticed")
    parent.ask("fork", count=10)
    parent.kill()
    with mlflow_server(sqlite_uri, tmp_path, *OURS, port=port):
        ledger.wait_for_once(1011, host)
    assert [10, 1001] == sorted(ledger.producers().values())
