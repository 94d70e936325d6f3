"""`flowledger backup` and `restore`: every call, run and sum is there again."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from flowledger.audit.proof import verify
from flowledger.cli import main
from flowledger.records import encode
from tests.calls import a_call
from tests.operating.postgres import BIN
from tests.test_migrate import contents
from tests.test_rollup import assert_true_sums, counted, open_bulk_sink

CALLS = 30


@pytest.fixture
def filled(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with calls, beside the tools of its own version."""
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    sink = open_bulk_sink(database_uri)
    sink.write([encode(a_call(tags={"team": "a"}, cost_usd=0.5)) for _ in range(CALLS)])
    sink.close()
    return database_uri


@pytest.fixture
def empty(filled: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database of the same kind."""
    if filled.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'again.db'}"
        return
    url = sa.make_url(filled)
    engine = sa.create_engine(filled, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    name = f"again_{url.database}"
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield url.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def flowledger(*arguments: str, uri: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, [*arguments, "--backend-store-uri", uri])
    return done.exit_code, done.output.strip()


def everything(uri: str) -> dict[str, Any]:
    """Every row of MLflow's tables and ours, by table."""
    engine = sa.create_engine(uri, poolclass=sa.pool.NullPool)
    found: dict[str, Any] = dict(contents(engine))
    with engine.connect() as connection:
        for table in ("runs", "params", "metrics", "tags", "trace_info", "spans", "experiments"):
            query = f"SELECT * FROM {table}"
            found[table] = sorted(map(str, connection.exec_driver_sql(query)))
    return found


def test_a_backup_restored_into_an_empty_database_holds_everything(
    filled: str, empty: str, tmp_path: Path
) -> None:
    file = tmp_path / "monday.backup"
    assert 0 == flowledger("backup", str(file), uri=filled)[0]
    assert 0o600 == file.stat().st_mode & 0o777
    code, said = flowledger("restore", str(file), uri=empty)
    assert (0, f"{CALLS} calls and {CALLS} runs are back; their sums hold") == (code, said)
    assert everything(filled) == everything(empty)
    assert_true_sums(empty)
    sink = open_bulk_sink(empty)
    assert [] == sink.write([encode(a_call())])
    sink.close()
    assert CALLS + 1 == counted(empty)


def test_the_chain_of_evidence_holds_after_a_restore(
    filled: str, empty: str, tmp_path: Path
) -> None:
    file, before = tmp_path / "monday.backup", verify(filled, processes=1)
    assert 0 == flowledger("backup", str(file), uri=filled)[0]
    assert 0 == flowledger("restore", str(file), uri=empty)[0]
    proof = verify(empty, before.head, processes=1)
    assert (True, True, before.head, CALLS) == (
        proof.intact,
        proof.anchored,
        proof.head,
        proof.calls,
    )
    engine = sa.create_engine(empty, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE llm_calls SET cost_usd = 0")
    assert not verify(empty, before.head, processes=1).intact


def test_a_backup_taken_while_calls_are_stored_is_whole(
    filled: str, empty: str, tmp_path: Path
) -> None:
    going, done = threading.Event(), threading.Event()

    def write() -> None:
        sink = open_bulk_sink(filled)
        while not done.is_set():
            sink.write([encode(a_call()) for _ in range(10)])
            going.set()
        sink.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert going.wait(60)
        code, said = flowledger("backup", str(tmp_path / "busy.backup"), uri=filled)
    finally:
        done.set()
        thread.join()
    assert 0 == code, said
    code, said = flowledger("restore", str(tmp_path / "busy.backup"), uri=empty)
    assert (0, True) == (code, said.endswith("their sums hold"))
    assert_true_sums(empty)
    assert 0 == (counted(empty) - CALLS) % 10


def test_what_is_there_is_never_overwritten(filled: str, tmp_path: Path) -> None:
    file = tmp_path / "monday.backup"
    assert 0 == flowledger("backup", str(file), uri=filled)[0]
    before = file.read_bytes()
    code, said = flowledger("backup", str(file), uri=filled)
    assert (2, True) == (code, "is there already" in said)
    code, said = flowledger("restore", str(file), uri=filled)
    assert (2, True) == (code, "already" in said)
    assert before == file.read_bytes()
    assert CALLS == counted(filled)


def test_sums_that_do_not_hold_are_told(filled: str, empty: str, tmp_path: Path) -> None:
    engine = sa.create_engine(filled, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE llm_rollup SET calls = calls + 1 WHERE span = 24")
    file = tmp_path / "odd.backup"
    assert 0 == flowledger("backup", str(file), uri=filled)[0]
    code, said = flowledger("restore", str(file), uri=empty)
    assert (1, True) == (code, said.endswith(f"their sums say {CALLS + 1}, should say {CALLS}"))


def test_a_file_of_another_kind_is_told(sqlite_uri: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database")
    empty = f"sqlite:///{tmp_path / 'again.db'}"
    code, said = flowledger("restore", str(file), uri=empty)
    assert (2, True) == (code, "is no backup of a sqlite database" in said)
    code, said = flowledger("restore", str(tmp_path / "none"), uri=empty)
    assert (1, True) == (code, "there is no file" in said)
    assert not (tmp_path / "again.db").exists()


def test_a_damaged_backup_makes_no_database(sqlite_uri: str, tmp_path: Path) -> None:
    file = tmp_path / "monday.backup"
    assert 0 == flowledger("backup", str(file), uri=sqlite_uri)[0]
    pages = file.read_bytes()
    file.write_bytes(pages[: len(pages) // 2])
    code, said = flowledger("restore", str(file), uri=f"sqlite:///{tmp_path / 'again.db'}")
    assert code in (2, 3)
    assert "damaged" in said or "cannot be copied" in said
    assert not (tmp_path / "again.db").exists()


def test_pg_dump_that_is_missing_is_told(
    postgres_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, said = flowledger("backup", str(tmp_path / "x"), uri=postgres_uri)
    assert (3, True) == (code, "pg_dump is not installed" in said)
    assert not (tmp_path / "x").exists()


def test_a_copied_sqlite_database_is_one_file(sqlite_uri: str, tmp_path: Path) -> None:
    file = tmp_path / "monday.backup"
    assert 0 == flowledger("backup", str(file), uri=sqlite_uri)[0]
    with closing(sqlite3.connect(file)) as opened:
        assert [("delete",)] == opened.execute("PRAGMA journal_mode").fetchall()
    assert [] == [path.name for path in tmp_path.glob("monday.backup-*")]
