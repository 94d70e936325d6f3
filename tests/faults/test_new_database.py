"""A new SQLite database is there whole, with its owner's rights alone, or not at all."""

import json
import multiprocessing
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowledger.cli import main
from flowledger.config import Destination
from flowledger.errors import StoreOutdated
from flowledger.records import encode
from flowledger.store import open_sink
from tests.calls import a_call

KILLS = 6


def destination(path: Path) -> Destination:
    return Destination(
        tracking_uri=f"sqlite:///{path}", artifact_root="/nonexistent", store_as="run+trace"
    )


def store_a_call(path: Path) -> None:
    sink = open_sink(destination(path))
    assert [] == sink.write([encode(a_call())])
    sink.close()


def test_a_maker_that_is_killed_or_has_no_room_leaves_nothing_that_stops_the_next(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.faults.making", str(tmp_path), str(KILLS)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(ran.stdout)
    assert (["killed"] * KILLS, ["failed", "failed"], "made") == (
        told["killed"],
        told["full"],
        told["last"],
    )
    assert {"mlflow.db"} == {one for one in told["left"] if not one.endswith(("-wal", "-shm"))}
    assert "0o600" == told["mode"]
    store_a_call(tmp_path / "mlflow.db")


def test_makers_that_start_at_once_make_one_database_that_keeps_the_calls_of_all(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mlflow.db"
    context = multiprocessing.get_context("spawn")
    makers = [context.Process(target=store_a_call, args=(path,)) for _ in range(3)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [0, 0, 0] == [maker.exitcode for maker in makers]
    with sqlite3.connect(path) as database:
        assert [(3,)] == database.execute("SELECT count(*) FROM llm_calls").fetchall()
    database.close()


def test_a_file_that_is_empty_is_filled_and_keeps_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.touch(0o640)
    before = path.stat()
    store_a_call(path)
    after = path.stat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


def test_a_log_of_a_database_that_was_deleted_does_not_reach_the_new_one(
    tmp_path: Path, empty_sqlite: Path
) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_sqlite.read_bytes())
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE of_the_deleted (one)")
        database.commit()
        path.unlink()
        store_a_call(path)
    database.close()
    with sqlite3.connect(path) as database:
        found = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'of_the_deleted'")
        assert [] == found.fetchall()
        assert [("ok",)] == database.execute("PRAGMA integrity_check").fetchall()
    database.close()


HALF_MADE = """
import os, sys
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
import sqlalchemy as sa
@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def stop(connection, cursor, statement, *rest):
    if statement.lstrip().upper().startswith("ALTER TABLE " + sys.argv[2].upper()):
        os.kill(os.getpid(), 9)
SqlAlchemyStore(sys.argv[1], "/nonexistent")
"""


@pytest.mark.parametrize("table", ["metrics", "runs", "model_versions"])
def test_a_database_that_mlflow_left_half_made_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    path = tmp_path / "mlflow.db"
    command = [sys.executable, "-c", HALF_MADE, f"sqlite:///{path}", table]
    assert -9 == subprocess.run(command, capture_output=True, check=False).returncode
    with pytest.raises(StoreOutdated, match=r"There are no runs in it: .* move the file away"):
        open_sink(destination(path))
    monkeypatch.setenv("FLOWLEDGER_TRACKING_URI", f"sqlite:///{path}")
    monkeypatch.setenv("FLOWLEDGER_HOME", str(tmp_path / "home"))
    shown = CliRunner().invoke(main, ["doctor"])
    assert (1, True) == (shown.exit_code, "move the file away" in " ".join(shown.output.split()))
    path.rename(tmp_path / "away.db")
    store_a_call(path)
