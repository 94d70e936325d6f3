"""`flush()` is True only when the store has everything, and says so once for each loss."""

from pathlib import Path

import pytest

from tests.faults.processes import Host, Ledger


@pytest.fixture
def read_only(home: Path) -> Path:
    """A FLOWLEDGER_HOME below a file, where nobody can write, root included."""
    home.write_text("no folder")
    return home


def test_flush_is_false_while_calls_are_not_kept_and_true_again_after_it(
    host: Host, sqlite_uri: str, read_only: Path
) -> None:
    application = host.start(sqlite_uri)
    application.ask("calls", count=300)
    assert (False, 300) == (application.ask("flush"), application.ask("dropped"))
    assert application.ask("flush")
    read_only.unlink()
    made = 300
    while made == application.ask("dropped"):
        made += application.ask("calls")["calls"]
    application.ask("flush")
    application.ask("calls", count=10)
    assert application.ask("flush")


def test_flush_is_false_where_recording_cannot_start(host: Host, sqlite_uri: str) -> None:
    application = host.start(sqlite_uri, journal_max_bytes="plenty")
    application.ask("calls")
    assert not application.ask("flush")


def test_flush_is_true_where_recording_is_switched_off(host: Host, sqlite_uri: str) -> None:
    application = host.start(sqlite_uri, enabled="false")
    application.ask("calls")
    assert application.ask("flush")


def test_flush_is_false_once_for_each_record_that_the_store_refuses(
    host: Host, sqlite_uri: str
) -> None:
    application = host.start(sqlite_uri)
    application.ask("calls")
    assert application.ask("flush")
    for _ in range(2):
        application.ask("record", operation=7)
        application.ask("calls")
        assert not application.ask("flush")
        assert application.ask("flush")
    assert (3, 2) == (Ledger(sqlite_uri).count(), len(host.rejected()))
