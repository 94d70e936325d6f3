"""Two versions of the server at once, and a database that goes away: nothing lost, sums right."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowledger
from flowledger.store.schema import migrations
from tests.faults.processes import slow
from tests.operating.postgres import Load, assert_all_there, own_postgres
from tests.server_client import Postgres, Server, rows, running

READY = "/api/flowledger/v1/ready"
NEXT = migrations()[-1].number + 1


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[Postgres]:
    with own_postgres() as server:
        yield server


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A folder with a flowledger that has one step more, beside which others must not write."""
    package = tmp_path / "newer" / "flowledger"
    shutil.copytree(Path(flowledger.__file__).parent, package)
    scripts = package / "store" / "migrations"
    (scripts / f"{NEXT:04}_next.sql").write_text(
        "-- Breaking: every call has a shift, which older writers leave out.\n\n"
        "ALTER TABLE llm_calls ADD COLUMN shift TEXT;\n"
    )
    (scripts / f"{NEXT:04}_next.down.sql").write_text(
        "-- Shifts.\n\nALTER TABLE llm_calls DROP COLUMN shift;\n"
    )
    return package.parent


def folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


@slow
def test_a_roll_out_to_a_newer_schema_under_load_loses_nothing(
    postgres: Postgres, newer: Path, tmp_path: Path
) -> None:
    serving: list[Server] = []
    with running(postgres.uri, folder(tmp_path, "old"), workers=1) as old:
        serving.append(old)
        with Load(lambda: list(serving)) as load:
            load.more()
            assert 200 == old.get(READY).status
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", str(newer))
                new_server = running(postgres.uri, folder(tmp_path, "new"), workers=1)
                with new_server as new:
                    assert NEXT == new.get(READY).json()["schema_version"]
                    said = old.get(READY)
                    assert 503 == said.status
                    assert f"newer flowledger (step {NEXT}" in said.json()["detail"]
                    serving.append(new)
                    load.more()
                    written = rows(postgres.uri, "SELECT count(*) AS n FROM llm_calls")
                    assert written[0]["n"] >= len(load.calls)
                    refused = [said for status, said in load.refusals if status == 503]
                    assert refused != []
                    serving.remove(old)
                    load.more()
                    load.stop()
    assert_all_there(postgres.uri, load.calls)


@slow
def test_postgresql_stopped_and_started_under_load_loses_nothing(
    postgres: Postgres, tmp_path: Path
) -> None:
    with running(postgres.uri, tmp_path, workers=2) as server, Load(lambda: [server]) as load:
        for _ in range(3):
            load.more()
            postgres.stop()
            seen = len(load.refusals)
            while len(load.refusals) < seen + 3:
                assert [] == load.failed
            postgres.start()
        load.more()
    assert any(status == 503 for status, _ in load.refusals)
    assert_all_there(postgres.uri, load.calls)
