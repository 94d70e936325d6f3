"""What a journal has no room for is counted and told by its numbers; all the rest arrives."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.faults.processes import Application, Host, Ledger, assert_unharmed, eventually, until
from tests.faults.test_database_down import locked

SMALLEST_JOURNAL = 1 << 20
BALLAST = "ballast"


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A disk of 2 MB under FLOWLEDGER_HOME; needs the right to mount."""
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(home)]
    subprocess.run(mount, check=True)
    yield home
    subprocess.run(["umount", "--lazy", str(home)], check=True)


def fill(disk: Path) -> None:
    """Use up what is left of a disk."""
    with (disk / BALLAST).open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            return


def assert_all_told(ledger: Ledger, application: Application, made: int) -> None:
    """Each of these calls is stored, or counted in a gap that says between which numbers."""
    dropped = application.ask("dropped")
    assert dropped > 0
    eventually(dropped, lambda: sum(count for _, _, count in gaps(ledger)))
    eventually(made - dropped, ledger.count)
    stored = {seq for (seq,) in ledger.rows("SELECT seq FROM llm_calls")}
    for first, last, count in gaps(ledger):
        assert {first, last}.isdisjoint(stored)
        assert count == last - first + 1 - len(stored & set(range(first, last + 1)))
    told = {n for first, last, _ in gaps(ledger) for n in range(first, last + 1)}
    assert set(range(1, made + 1)) == stored | told


def gaps(ledger: Ledger) -> list[tuple[int, int, int]]:
    """First number, last number and count of every gap."""
    found = ledger.rows("SELECT first_seq, last_seq, dropped FROM llm_gaps ORDER BY first_seq")
    return [(first, last, count) for first, last, count in found]


def test_a_full_disk_costs_only_the_calls_that_do_not_fit(
    host: Host, sqlite_uri: str, small_disk: Path
) -> None:
    ledger = Ledger(sqlite_uri)
    application = host.start(sqlite_uri)
    told = application.ask("calls", count=10, size=2000)
    assert application.ask("flush")
    for _ in range(2):
        fill(small_disk)
        on_full_disk = application.ask("calls", count=1000, size=2000)
        assert_unharmed(on_full_disk)
        (small_disk / BALLAST).unlink()
        application.ask("calls", count=50, size=2000)
        told["calls"] += on_full_disk["calls"] + 50
    assert not application.ask("flush")
    assert_all_told(ledger, application, told["calls"])
    [warning] = application.warnings()
    assert "flowledger.journal: calls are not kept: [Errno 28] No space" in warning


def test_a_full_journal_costs_only_the_calls_that_do_not_fit(host: Host, sqlite_uri: str) -> None:
    ledger = Ledger(sqlite_uri)
    application = host.start(sqlite_uri, collector="off", journal_max_bytes=SMALLEST_JOURNAL)
    assert_unharmed(application.ask("calls", count=2000, size=2000))
    host.collect_once(sqlite_uri)
    time.sleep(1.1)  # a full journal is looked at again after a second
    assert_unharmed(application.ask("calls", count=1000, size=2000))
    host.collect_once(sqlite_uri)
    assert_all_told(ledger, application, 3000)
    assert 2 == len(gaps(ledger))
    assert SMALLEST_JOURNAL > sum(path.stat().st_size for path in host.segments())


def test_what_did_not_fit_is_told_once_the_store_is_back(host: Host, sqlite_uri: str) -> None:
    ledger = Ledger(sqlite_uri)
    engine = sa.create_engine(sqlite_uri)
    application = host.start(sqlite_uri, journal_max_bytes=SMALLEST_JOURNAL)
    application.ask("calls")
    assert application.ask("flush")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE llm_calls RENAME TO elsewhere")
    application.ask("calls", count=1000, size=2000)
    until(lambda: "calls wait" in "".join(host.collector_log()), "the outage is noticed")
    time.sleep(2)  # the store is tried again, in vain
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO llm_calls")
    engine.dispose()
    assert not application.ask("flush")
    assert_all_told(ledger, application, 1001)


def test_what_a_process_could_not_keep_is_told_after_its_end(
    host: Host, sqlite_uri: str, small_disk: Path
) -> None:
    ledger = Ledger(sqlite_uri)
    application = host.start(sqlite_uri)
    application.ask("calls")
    assert application.ask("flush")
    with locked(sqlite_uri, "IMMEDIATE"):
        application.ask("calls", size=6000)
        time.sleep(1)  # the collector has it and waits for the lock
        fill(small_disk)
        application.ask("calls", count=20, size=6000)
        assert 20 == application.ask("dropped")
        assert 0 == application.leave()
    eventually(2, ledger.count)
    eventually([], host.segments)
    assert [(3, 22, 20)] == gaps(ledger)


def test_a_process_that_finds_no_room_at_all_is_told_with_all_its_numbers(
    host: Host, sqlite_uri: str
) -> None:
    settings: dict[str, Any] = {"collector": "off", "journal_max_bytes": SMALLEST_JOURNAL}
    first = host.start(sqlite_uri, **settings)
    second = host.start(sqlite_uri, **settings)
    first.ask("calls", count=1000, size=2000)
    second.ask("calls", count=10, size=2000)
    assert 10 == second.ask("dropped")
    assert 0 == second.leave()
    host.collect_once(sqlite_uri)
    assert (1, 10, 10) in gaps(Ledger(sqlite_uri))
    assert 1000 - first.ask("dropped") == Ledger(sqlite_uri).count()
