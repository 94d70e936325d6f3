"""A collector may die at any moment: another one takes over where it was."""

import socket
import subprocess
import sys
import time

from tests.faults.processes import Host, Ledger, assert_unharmed, until

KILLS = 3
ATTEMPTS = 6
LEAST_BACK_OFF = 8.9  # seconds after so many attempts: 70 % of 0.2 s doubled so often


def test_calls_arrive_once_however_often_the_collector_is_killed(
    host: Host, sqlite_uri: str
) -> None:
    ledger = Ledger(sqlite_uri)
    application = host.start(sqlite_uri)
    application.ask("begin", pause=0.001, size=2000)
    made = 0
    for number in range(KILLS):
        kill_at_work(host, ledger, number * 0.07)
        # The first call of a process starts a collector where there is none.
        made += host.start(sqlite_uri).ask("calls", count=500, size=2000)["calls"]
    kill_at_work(host, ledger, 0.1)
    # The application that goes on starts one, too, some seconds after the last.
    until(host.collector, "the application started a new collector")
    told = application.ask("end")
    assert_unharmed(told)
    ledger.wait_for_once(told["calls"] + made, host)
    assert [500] * KILLS + [told["calls"]] == sorted(ledger.producers().values())


def kill_at_work(host: Host, ledger: Ledger, after: float) -> None:
    """Kill the collector while it is storing, so many seconds into its work."""
    before = ledger.count()
    until(lambda: ledger.count() > before, "a collector stores calls")
    collector = until(host.collector, "a collector runs")
    time.sleep(after)
    collector.kill()
    until(lambda: host.collector() is None, "the collector is dead")


def test_a_collector_that_backs_off_leaves_when_told_to(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as store:
        uri = f"http://127.0.0.1:{store.getsockname()[1]}"
        command = [sys.executable, "-m", "flowledger", "collect"]
        collector = subprocess.Popen(command, env=host.environ(uri), stderr=subprocess.DEVNULL)
        for _ in range(ATTEMPTS):
            store.accept()[0].close()
        backs_off_until = time.monotonic() + LEAST_BACK_OFF
        collector.terminate()
        assert 0 == collector.wait()
        assert time.monotonic() < backs_off_until
