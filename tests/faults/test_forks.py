"""Processes that fork, before or after their first call, lose nothing and double nothing."""

import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.forking import CALLS, CHILDREN
from tests.faults.processes import FOLDER, Host, Ledger, until
from tests.servers import free_port, mlflow_server

WAYS = ("fork", "pool-fork", "pool-spawn")
MADE = CALLS * (2 + CHILDREN)


# A child that hangs is ended by its alarm, and its parent says so with its own exit code.
FORK_EARLY = """
import os, signal, sys, time, flowledger
flowledger.record()
time.sleep(float(sys.argv[1]))
if not (child := os.fork()):
    signal.alarm(20)
    import urllib3
    flowledger.record()
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""
FORK_WHILE_WARNING = """
import os, signal, sys, threading, flowledger, flowledger.logs
def warn_over_and_over():
    while True:
        flowledger.logs.warn("faults", "this is over and over")
for _ in range(2):
    threading.Thread(target=warn_over_and_over, daemon=True).start()
for _ in range(5):
    if not (child := os.fork()):
        signal.alarm(10)
        flowledger.record()
        os._exit(0)
    if code := os.waitpid(child, 0)[1]:
        os._exit(code)
os._exit(0)
"""


@pytest.mark.parametrize("way", WAYS)
def test_both_sides_of_a_fork_go_on_recording_to_a_database(
    host: Host, sqlite_uri: str, way: str
) -> None:
    host.run(str(FOLDER / "forking.py"), way, uri=sqlite_uri)
    ledger = Ledger(sqlite_uri)
    ledger.wait_for_once(MADE, host)
    assert MADE == sum(ledger.producers().values())


def test_both_sides_of_a_fork_go_on_recording_to_a_server(
    host: Host, sqlite_uri: str, tmp_path: Path
) -> None:
    with mlflow_server(sqlite_uri, tmp_path, "--app-name", "flowledger") as url:
        for way in (*WAYS, "fork", "fork", "fork"):
            assert "" == host.run(str(FOLDER / "forking.py"), way, uri=url)
        host.run("-c", "import flowledger; flowledger.record(); flowledger.flush(60)", uri=url)
        ledger = Ledger(sqlite_uri)
        ledger.wait_for_once(6 * MADE + 1, host)
    assert 6 * MADE + 1 == sum(ledger.producers().values())


def test_a_fork_right_after_the_first_call_harms_no_import_of_the_child(host: Host) -> None:
    for milliseconds in range(0, 50, 7):
        delay = str(milliseconds / 1000)
        host.run("-c", FORK_EARLY, delay, uri="http://127.0.0.1:9", exit_timeout=0)


def test_a_fork_in_the_middle_of_a_warning_stalls_no_child(host: Host, sqlite_uri: str) -> None:
    host.home.write_text("no folder, so that the child warns, too")
    host.run("-c", FORK_WHILE_WARNING, uri=sqlite_uri)


def test_workers_of_a_preloaded_gunicorn_record_every_request(host: Host, sqlite_uri: str) -> None:
    port = free_port()
    options = ("--preload", "--workers", "3", "--bind", f"127.0.0.1:{port}")
    recycled = ("--max-requests", "20", "--max-requests-jitter", "10")
    with host.running("-m", "gunicorn", "web:application", *options, *recycled, uri=sqlite_uri):
        until(lambda: connects(port), "gunicorn listens")
        with ThreadPoolExecutor(6) as clients:
            answers = list(clients.map(lambda number: get(port, number), range(150)))
    assert [f"You asked for /{number}\n" for number in range(150)] == answers
    ledger = Ledger(sqlite_uri)
    ledger.wait_for_once(151, host)
    assert len(ledger.producers()) > 3


def test_prefork_workers_of_celery_record_every_task(
    host: Host, sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_FOLDER", str(tmp_path / "broker"))
    options = ("worker", "--concurrency", "2", "--max-tasks-per-child", "15", "--loglevel", "ERROR")
    host.run(str(FOLDER / "tasks.py"), "60", uri=sqlite_uri)
    with host.running("-m", "celery", "--app", "tasks", *options, uri=sqlite_uri):
        ledger = Ledger(sqlite_uri)
        ledger.wait_for_once(61, host)
    ledger.wait_for_once(61, host)
    assert len(ledger.producers()) > 2


def connects(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def get(port: int, number: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{number}", timeout=60) as answer:
        text: str = answer.read().decode()
        return text
