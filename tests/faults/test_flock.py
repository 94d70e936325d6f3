"""A file system whose locks keep nobody out costs calls that are counted, and never one unseen."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.processes import Host, Ledger, assert_unharmed
from tests.needs import need_program

SAYS_YES = """
#include <sys/file.h>
int flock(int fd, int operation) { (void)fd; (void)operation; return 0; }
"""
WHAT_TO_CHANGE = "set FLOWLEDGER_HOME to a folder on a local disk"


@pytest.fixture
def no_flock(tmp_path: Path) -> str:
    """A library under which `flock` does nothing and says it did, as on NFS with nolock."""
    need_program("cc", package="gcc")
    source, library = tmp_path / "noflock.c", tmp_path / "noflock.so"
    source.write_text(SAYS_YES)
    compiler = shutil.which("cc") or "cc"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return str(library)


def test_where_flock_does_nothing_calls_are_refused_and_flush_says_so(
    host: Host, sqlite_uri: str, no_flock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", no_flock)
    application = host.start(sqlite_uri)
    for _ in range(3):
        assert_unharmed(application.ask("calls", count=100, pause=0.01))
        assert not application.ask("flush")
    assert (300, 0) == (application.ask("dropped"), Ledger(sqlite_uri).count())
    assert [] == host.segments()
    assert any(WHAT_TO_CHANGE in line for line in application.warnings())


def test_a_collector_to_which_flock_does_nothing_deletes_no_journal_in_use(
    host: Host, sqlite_uri: str, no_flock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = host.start(sqlite_uri, collector="off")
    application.ask("calls", count=100)
    monkeypatch.setenv("LD_PRELOAD", no_flock)
    collector = subprocess.run(
        [sys.executable, "-m", "flowledger", "collect", "--once"],
        env=host.environ(sqlite_uri),
        stderr=subprocess.PIPE,
        text=True,
    )
    monkeypatch.delenv("LD_PRELOAD")
    assert 0 != collector.returncode
    assert WHAT_TO_CHANGE in collector.stderr
    application.ask("calls", count=100)
    host.collect_once(sqlite_uri)
    assert 200 == Ledger(sqlite_uri).count()


def test_the_doctor_says_that_flock_does_nothing(
    host: Host, sqlite_uri: str, no_flock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", no_flock)
    doctor = subprocess.run(
        [sys.executable, "-m", "flowledger", "doctor"],
        env=host.environ(sqlite_uri),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "flock does not work in" in " ".join(doctor.stdout.split())
