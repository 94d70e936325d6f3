"""`flowledger migrate`: tables forward and back, and what that loses, on both databases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from flowledger.cli import main
from flowledger.config import Destination
from flowledger.errors import NotFound, StoreMisconfigured, StoreOutdated
from flowledger.records import Actor, encode
from flowledger.shipping.collector import Collector
from flowledger.shipping.loop import read_status
from flowledger.store.backfill import repair
from flowledger.store.schema import applied, migrate, migrate_back, migrations
from tests.calls import a_call
from tests.faults.processes import slow
from tests.test_rollup import assert_true_sums, counted, open_bulk_sink

STEPS = [migration.number for migration in migrations()]
NEWEST = STEPS[-1]


@pytest.fixture
def filled(database_uri: str) -> str:
    """A database with calls of several kinds in it."""
    sink = open_bulk_sink(database_uri)
    calls = [
        a_call(tags={"team": "a", "odd key!": 3}, metrics={"confidence": 0.5}),
        a_call(feature=None, actor=Actor()),
        a_call(inner_calls=1),
    ]
    assert [] == sink.write([encode(call) for call in calls])
    sink.close()
    return database_uri


@pytest.fixture
def engine(filled: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(filled, poolclass=sa.pool.NullPool)
    yield engine
    engine.dispose()


def schema(engine: sa.Engine) -> list[Any]:
    """Every table with its columns, every index and every view."""
    found = sa.inspect(engine)
    tables = {
        name: (
            sorted((c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(name)),
            found.get_pk_constraint(name)["constrained_columns"],
            sorted((str(i["name"]), i["column_names"]) for i in found.get_indexes(name)),
        )
        for name in found.get_table_names()
    }
    return [tables, [(v, found.get_view_definition(v)) for v in found.get_view_names()]]


def contents(engine: sa.Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row of our tables, without the times of migrations."""
    names = [n for n in sa.inspect(engine).get_table_names() if n.startswith("llm_")]
    with engine.connect() as connection:
        return {
            name: sorted(
                (dict(row._mapping) for row in connection.exec_driver_sql(f"SELECT * FROM {name}")),
                key=str,
            )
            for name in names
            if name != "llm_schema"
        }


def flowledger(*arguments: str, uri: str, answer: str = "") -> tuple[int, str]:
    command = [*arguments, "--backend-store-uri", uri]
    done = CliRunner().invoke(main, command, input=answer)
    return done.exit_code, done.output


def test_every_script_has_its_way_back_and_says_what_that_loses() -> None:
    assert [] == [m.name for m in migrations() if not m.back or not m.loss.endswith(".")]


@pytest.mark.parametrize(
    "step", [0, 3, STEPS[-2], *(pytest.param(n, marks=slow) for n in STEPS[:-2] if n != 3)]
)
def test_there_and_back_again_leaves_the_same_tables(engine: sa.Engine, step: int) -> None:
    before, rows, taken = schema(engine), contents(engine), list(reversed(STEPS))
    assert [n for n in taken if n > step] == migrate_back(engine, step)
    assert [n for n in STEPS if n <= step] == sorted(applied(engine))
    lost = set(rows) - set(contents(engine))
    assert [n for n in STEPS if n > step] == migrate(engine)
    assert before == schema(engine)
    made_again = {"llm_groups", "llm_rollup", "llm_latencies", "llm_facets", "llm_tags"}
    kept = rows.keys() - (lost - made_again if step else rows.keys())
    assert {n: rows[n] for n in kept} == {n: r for n, r in contents(engine).items() if n in kept}


def test_calls_an_older_schema_can_hold_are_there_with_their_sums(
    engine: sa.Engine, filled: str
) -> None:
    migrate_back(engine, 1)
    migrate(engine)
    assert 2 == counted(filled)
    assert_true_sums(filled)


def test_going_back_tells_what_it_loses_and_asks(filled: str) -> None:
    code, said = flowledger("migrate", "--to", "3", uri=filled, answer="n\n")
    assert 1 == code
    assert "step 4 back loses: Nothing that cannot be made again" in said
    assert "2 rows of llm_groups" in said
    assert "nothing was changed" in said
    engine = sa.create_engine(filled, poolclass=sa.pool.NullPool)
    assert STEPS == sorted(applied(engine))
    code, said = flowledger("migrate", "--to", "3", uri=filled, answer="y\n")
    assert 0 == code
    assert [1, 2, 3] == sorted(applied(engine))
    assert "not taken" in flowledger("migrate", "--status", uri=filled)[1]
    code, said = flowledger("migrate", uri=filled)
    assert (0, f"the tables are at step {NEWEST}") == (code, said.splitlines()[-1])
    assert "not taken" not in flowledger("migrate", "--status", uri=filled)[1]


def test_it_makes_the_tables_of_an_empty_database(tmp_path: Path) -> None:
    code, said = flowledger("migrate", uri=f"sqlite:///{tmp_path / 'new.db'}")
    assert (0, f"the tables are at step {NEWEST}") == (code, said.splitlines()[-1])


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    code, said = flowledger("migrate", "--status", uri=f"sqlite:///{tmp_path / 'none.db'}")
    assert (1, True) == (code, "give another with --backend-store-uri" in said)


def newer_step(engine: sa.Engine, breaking: bool) -> None:
    """What a newer flowledger leaves in the database."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO llm_schema (version, applied_ms, breaking) VALUES (9999, 1, {breaking})"
        )


def test_nobody_writes_beside_a_newer_schema_that_says_so(engine: sa.Engine, filled: str) -> None:
    sink = open_bulk_sink(filled)
    newer_step(engine, breaking=True)
    with pytest.raises(StoreOutdated, match=r"step 9999, this one knows"):
        sink.write([encode(a_call())])
    with pytest.raises(StoreOutdated):
        sink.remove(["f" * 32])
    sink.close()
    with pytest.raises(StoreOutdated):
        open_bulk_sink(filled)
    assert 2 == counted(filled)
    with pytest.raises(NotFound, match="take it back with that one"):
        migrate_back(engine, 3)


def test_a_collector_leaves_a_newer_schema_to_whoever_is_started_next(
    sqlite_uri: str, tmp_path: Path
) -> None:
    open_bulk_sink(sqlite_uri).close()
    engine = sa.create_engine(sqlite_uri, poolclass=sa.pool.NullPool)
    newer_step(engine, breaking=True)
    place = Destination(tracking_uri=sqlite_uri, artifact_root="/nonexistent", store_as="run")
    Collector(tmp_path, place).run(lambda: True, idle_seconds=5.0)
    status = read_status(tmp_path)
    assert status is not None
    assert "replaced by a newer one" in str(status.error)


def test_a_newer_schema_that_breaks_nothing_is_written_to(engine: sa.Engine, filled: str) -> None:
    sink = open_bulk_sink(filled)
    newer_step(engine, breaking=False)
    assert [] == sink.write([encode(a_call())])
    sink.close()
    open_bulk_sink(filled).close()
    assert 3 == counted(filled)


def test_calls_without_sums_are_added_up_once(engine: sa.Engine, filled: str) -> None:
    columns = [
        c["name"]
        for c in sa.inspect(engine).get_columns("llm_calls")
        if c["name"] not in ("id", "group_id", "latency_bucket")
    ]
    names = ", ".join(columns)
    with engine.begin() as connection:  # as a flowledger from before there was a roll-up
        connection.exec_driver_sql(
            f"INSERT INTO llm_calls (id, {names})"
            f" SELECT 'e' || SUBSTR(id, 2), {names} FROM llm_calls"
        )
    assert 3 == repair(engine)
    assert 0 == repair(engine)
    assert 4 == counted(filled)
    assert_true_sums(filled)


def test_a_sink_finds_and_adds_up_what_an_older_one_stores_beside_it(
    engine: sa.Engine, filled: str
) -> None:
    sink = open_bulk_sink(filled)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM llm_rollup")
        connection.exec_driver_sql("DELETE FROM llm_facets")
        connection.exec_driver_sql("DELETE FROM llm_latencies")
        connection.exec_driver_sql("UPDATE llm_calls SET group_id = NULL")
    assert [] == sink.write([])
    sink.close()
    assert 2 == counted(filled)
    assert_true_sums(filled)


def test_who_may_not_change_tables_hears_who_may(
    postgres_uri: str,
) -> None:
    owner = sa.create_engine(postgres_uri, poolclass=sa.pool.NullPool)
    role = f"weak_{sa.make_url(postgres_uri).database}"
    with owner.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
    weak = sa.create_engine(
        sa.make_url(postgres_uri).set(username=role), poolclass=sa.pool.NullPool
    )
    try:
        with pytest.raises(StoreMisconfigured, match="run `flowledger migrate` as their owner"):
            migrate(weak)
        migrate(owner)
        with owner.begin() as connection:
            connection.exec_driver_sql(f"GRANT SELECT ON llm_schema TO {role}")
        assert [] == migrate(weak)
    finally:
        with owner.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")
