"""What is set up wrongly costs one clear sentence; the application goes on all the same."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.faults.processes import FOLDER, Host, Ledger, assert_unharmed, until

SHIPPING_LOOKS_AGAIN = 1.5  # seconds
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown scheme": ({"tracking_uri": "mongodb://here/db"}, "unknown scheme 'mongodb'"),
    "no address": ({"tracking_uri": "http://[::1"}, "tracking_uri"),
    "no number": ({"journal_max_bytes": "plenty"}, "journal_max_bytes"),
    "no such user": ({"home": "~nobody-of-this-name/ledger"}, "home"),
    "no such word": ({"enabled": "perhaps"}, "FLOWLEDGER_ENABLED='perhaps': use true or false"),
    "no such field": ({"experiment": "{flavour}"}, "there is no flavour"),
    "no such file": ({"config": "/nonexistent.yaml"}, "FLOWLEDGER_CONFIG names /nonexistent.yaml"),
}
FILES = {
    "no YAML": ("tracking_uri: [", "flowledger.yaml cannot be read"),
    "no map": ("- one\n- two", "flowledger.yaml must hold settings"),
    "binary": ("\x00\x01\x02", "flowledger.yaml cannot be read"),
    "no encoding": ("\xff\xfe\xfa", "flowledger.yaml cannot be read"),
    "an unknown name": ("tracking_url: sqlite:///x.db", "unknown setting tracking_url"),
    "a name that is no text": ("1: 2", "unknown setting 1"),
    "a value of the wrong type": ("durability: {a: b}", "a setting has the wrong type"),
}


WITHOUT_MLFLOW = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mlflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


def assert_goes_on(
    host: Host, uri: str, said: str, *, seconds: float = 0.0, **settings: Any
) -> None:
    """An application is answered as ever, for so long, and logs one line that says so."""
    application = host.start(uri, **settings)
    assert_unharmed(application.ask("calls", count=100))
    time.sleep(seconds)
    assert_unharmed(application.ask("calls", count=100))
    assert 0 == application.leave()
    lines = application.warnings()
    assert 1 == len(lines), lines
    assert lines[0].startswith("WARNING flowledger.")
    assert said in lines[0]


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting_that_is_wrong_is_named(host: Host, sqlite_uri: str, case: str) -> None:
    settings, said = SETTINGS[case]
    assert_goes_on(host, sqlite_uri, said, **settings)


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_settings_that_is_broken_is_named(
    host: Host, sqlite_uri: str, tmp_path: Path, case: str
) -> None:
    text, said = FILES[case]
    (tmp_path / "flowledger.yaml").write_text(text, "latin-1")
    assert_goes_on(host, sqlite_uri, said)


@pytest.mark.parametrize("depth", ["home", "home/journal"])
def test_a_journal_folder_that_cannot_be_made_is_named(
    host: Host, sqlite_uri: str, tmp_path: Path, depth: str
) -> None:
    (tmp_path / depth).parent.mkdir(exist_ok=True)
    (tmp_path / depth).write_text("no folder")
    said = f"calls are not kept: [Errno 20] Not a directory: '{host.home}"
    assert_goes_on(host, sqlite_uri, said, seconds=SHIPPING_LOOKS_AGAIN)


def test_recording_begins_once_the_journal_folder_can_be_made(host: Host, sqlite_uri: str) -> None:
    host.home.write_text("no folder")
    application = host.start(sqlite_uri)
    application.ask("calls", count=10)
    time.sleep(SHIPPING_LOOKS_AGAIN)
    host.home.unlink()
    time.sleep(SHIPPING_LOOKS_AGAIN)
    application.ask("calls", count=10)
    assert not application.ask("flush")
    assert [(10,)] == Ledger(sqlite_uri).rows("SELECT dropped FROM llm_gaps")
    assert 10 == Ledger(sqlite_uri).count()


def test_a_working_directory_that_is_gone_harms_nobody(
    host: Host, sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    application = host.start(sqlite_uri)
    application.ask("dropped")
    gone.rmdir()
    assert_unharmed(application.ask("calls", count=100))
    assert 0 == application.leave()
    assert len(application.warnings()) <= 1


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 80])
def test_a_program_of_any_name_is_recorded(
    host: Host, sqlite_uri: str, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name / name / name
    folder.mkdir(parents=True)
    program = Path(shutil.copy(FOLDER / "application.py", folder))
    application = host.start(sqlite_uri, program=program)
    assert_unharmed(application.ask("calls", count=10))
    assert application.ask("flush")
    Ledger(sqlite_uri).wait_for_once(10, host)


def test_a_collector_that_cannot_start_is_named(host: Host, sqlite_uri: str) -> None:
    said = "calls wait in the journal, no collector can start: [Errno 2]"
    python = "/nonexistent/python"
    assert_goes_on(host, sqlite_uri, said, seconds=SHIPPING_LOOKS_AGAIN, collector_python=python)
    host.collect_once(sqlite_uri)
    Ledger(sqlite_uri).wait_for_once(200, host)


def test_a_collector_without_mlflow_says_so_and_keeps_the_calls(
    host: Host, sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_MLFLOW)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    application = host.start(sqlite_uri)
    assert_unharmed(application.ask("calls", count=100))
    assert "mlflow is not installed where calls are shipped" in the_warning(host)
    assert 0 == application.leave()
    assert [] == application.warnings()
    until(host.collector, "a collector runs").kill()
    monkeypatch.delenv("PYTHONPATH")
    host.collect_once(sqlite_uri)
    Ledger(sqlite_uri).wait_for_once(100, host)


def test_a_database_of_another_mlflow_is_named_and_takes_the_calls_once_it_is_supported(
    host: Host, sqlite_uri: str
) -> None:
    engine = sa.create_engine(sqlite_uri)
    with engine.begin() as connection:
        ours = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    application = host.start(sqlite_uri)
    assert_unharmed(application.ask("calls", count=100))
    assert "the database is at MLflow revision ffffffffffff" in the_warning(host)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{ours}'")
    engine.dispose()
    assert application.ask("flush")
    Ledger(sqlite_uri).wait_for_once(100, host)


def the_warning(host: Host) -> str:
    """The only warning of a collector that tried more than once."""
    until(lambda: warnings(host), "the collector warns")
    time.sleep(3)
    [line] = warnings(host)
    return line


def warnings(host: Host) -> list[str]:
    """What collectors warned of."""
    return [line for line in host.collector_log() if " WARNING " in line]
