"""A PostgreSQL of one's own: made when it is needed, and found again."""

import shutil
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from flowledger.errors import FlowledgerError
from flowledger.testing.postgres import local_postgres


def test_what_is_kept_in_a_database_is_there_the_next_time() -> None:
    place = Path(tempfile.mkdtemp(prefix="flowledger-pg-"))  # PostgreSQL's own user must reach it
    place.chmod(0o755)
    with local_postgres('odd "name"', place / "data") as uri:
        _do(uri, "CREATE TABLE kept AS SELECT 7 AS number")
    with local_postgres('odd "name"', place / "data") as uri:
        assert [7] == _do(uri, "SELECT number FROM kept")
    shutil.rmtree(place)


def test_a_folder_that_cannot_hold_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FlowledgerError, match=f"{tmp_path}/file"),
        local_postgres("name", tmp_path / "file"),
    ):
        pass


def _do(uri: str, statement: str) -> list[int]:
    engine = sa.create_engine(uri, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        done = connection.exec_driver_sql(statement)
        return list(done.scalars()) if done.returns_rows else []
