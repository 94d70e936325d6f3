"""A process that ends, however it ends, leaves no call behind."""

from pathlib import Path

import pytest

from tests.faults.processes import Host, Ledger, until
from tests.servers import mlflow_server

ONE_CALL = """
import os, sys, flowledger
flowledger.record(feature="faults", model="gpt-4o", prompt="?", response="!")
if sys.argv[1] == "flush":
    assert flowledger.flush(60)
    os._exit(0)
"""


def test_every_call_of_a_killed_process_arrives_once(host: Host, sqlite_uri: str) -> None:
    application = host.start(sqlite_uri)
    application.ask("calls", count=5000)
    application.kill()
    host.run("-c", ONE_CALL, "leave", uri=sqlite_uri)  # whoever ships next adopts what is left
    ledger = Ledger(sqlite_uri)
    ledger.wait_for_once(5001, host)
    assert [1, 5000] == sorted(ledger.producers().values())


@pytest.mark.parametrize("way", ["leave", "flush"])
def test_the_only_call_of_a_short_script_arrives_by_a_collector(
    host: Host, sqlite_uri: str, way: str
) -> None:
    host.run("-c", ONE_CALL, way, uri=sqlite_uri)
    Ledger(sqlite_uri).wait_for_once(1, host)


def test_the_only_call_of_a_short_script_arrives_at_a_server(
    host: Host, sqlite_uri: str, tmp_path: Path
) -> None:
    with mlflow_server(sqlite_uri, tmp_path, "--app-name", "flowledger") as url:
        for number, way in enumerate(("leave", "leave", "flush"), 1):
            host.run("-c", ONE_CALL, way, uri=url)
            until(lambda: Ledger(sqlite_uri).count() == number, "the call is stored")  # noqa: B023
        Ledger(sqlite_uri).wait_for_once(3, host)
