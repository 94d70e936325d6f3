"""`llm_calls` by month on PostgreSQL: the same rows and answers, and whole months dropped."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from flowledger import config
from flowledger.audit.bundle import export, verify_file
from flowledger.audit.erasure import purge
from flowledger.audit.proof import verify
from flowledger.audit.signing import key_path, make_key
from flowledger.cli import main
from flowledger.cli.diagnosis import examine
from flowledger.config import Destination
from flowledger.errors import StoreMisconfigured, StoreUnavailable
from flowledger.questions import Ledger
from flowledger.records import Call, Job, Place, encode, fixed_id, new_id
from flowledger.server.database import Database
from flowledger.server.prepare import main as prepare_server
from flowledger.server.standing import ask_standing
from flowledger.store import open_sink
from flowledger.store.bulk import BulkSink
from flowledger.store.partitions import (
    DEFAULT,
    EARLIEST,
    Month,
    keep_ahead,
    look,
    one_table,
    partition,
    this_month,
)
from flowledger.store.schema import migrate, migrate_back
from tests.calls import NOW_NS, a_call
from tests.test_erasure import scalar
from tests.test_evidence_proof import execute, numbered, store
from tests.test_migrate import contents, schema
from tests.test_rollup import assert_true_sums, counted, open_bulk_sink

DAY_NS = 86_400 * 10**9
NOW = this_month()
AHEAD = [NOW.plus(n) for n in range(4)]


def of_month(month: Month, number: int = 0, **fields: Any) -> Call:
    """A call that began in this month, as its id says too."""
    start_ns = (int(month.first[:12], 16) + 1000 + number) * 10**6
    return numbered(
        **{"id": fixed_id(f"{month}{number}", start_ns), "start_ns": start_ns, **fields}
    )


def by_month(uri: str) -> str:
    engine = sa.create_engine(uri, poolclass=sa.pool.NullPool)
    migrate(engine)
    partition(engine)
    return uri


def held(uri: str) -> dict[str, int]:
    """How many calls each partition has, those that have some."""
    engine = sa.create_engine(uri, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT tableoid::regclass::text, count(*) FROM llm_calls GROUP BY 1"
        )
        return {str(name): int(count) for name, count in found}


@pytest.fixture
def engine(postgres_uri: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(postgres_uri, poolclass=sa.pool.NullPool)
    yield engine
    engine.dispose()


def look_at(engine: sa.Engine) -> list[Month]:
    with engine.connect() as connection:
        return look(connection).months


@given(st.integers(int(EARLIEST.first[:12], 16), 2**42))
def test_an_id_is_in_the_range_of_the_month_it_was_made_in(milliseconds: int) -> None:
    made = datetime.fromtimestamp(milliseconds / 1000, UTC)
    month = Month(made.year, made.month)
    assert month.first <= fixed_id("any", milliseconds * 10**6) < month.beyond
    assert month == month.plus(17).plus(-17)


def test_calls_move_into_their_months_and_back_and_nothing_else_changes(
    engine: sa.Engine, postgres_uri: str
) -> None:
    past, odd = NOW.plus(-5), [a_call(id="f" * 32), a_call(id="0" * 31 + "1")]
    late = [of_month(past, n, tags={"team": "a"}) for n in range(3)]
    store(postgres_uri, [*late, numbered(), *odd])
    for statement in (
        "CREATE INDEX \"my Own\" ON llm_calls (seq) WHERE model <> 'x'",
        "CREATE VIEW mine AS SELECT id, 'a%b'::text AS x FROM llm_calls",
        "GRANT SELECT, UPDATE ON llm_calls TO PUBLIC",
        "GRANT SELECT ON mine TO PUBLIC",
    ):
        execute(postgres_uri, statement)
    tables, rows, rights = schema(engine), contents(engine), granted(engine)
    told: list[tuple[str, int]] = []

    made = partition(engine, lambda name, moved: told.append((name, moved)))

    assert sorted({past, *AHEAD}) == made == look_at(engine)
    counts = {past.table: 3, NOW.table: 1, **{m.table: 0 for m in AHEAD[1:]}, DEFAULT: 2}
    assert counts == dict(told)
    assert {past.table: 3, NOW.table: 1, DEFAULT: 2} == held(postgres_uri)
    parts = {month.table for month in made} | {DEFAULT}
    assert rows == {name: some for name, some in contents(engine).items() if name not in parts}
    assert tables == without(schema(engine), parts)
    assert rights == granted(engine)
    assert [] == partition(engine)

    assert one_table(engine)
    assert (tables, rows, rights) == (schema(engine), contents(engine), granted(engine))
    assert not one_table(engine)


def without(found: list[Any], parts: set[str]) -> list[Any]:
    return [{name: one for name, one in found[0].items() if name not in parts}, found[1]]


def granted(engine: sa.Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        query = (
            "SELECT c.relname, a.grantee, a.privilege_type FROM pg_class c,"
            " aclexplode(c.relacl) a WHERE c.relname IN ('llm_calls', 'llm_measured', 'mine')"
        )
        return sorted(map(tuple, connection.exec_driver_sql(query)))


def test_a_view_of_somebody_elses_on_the_calls_is_named_and_nothing_changes(
    engine: sa.Engine, postgres_uri: str
) -> None:
    store(postgres_uri, [numbered()])
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE MATERIALIZED VIEW kept AS SELECT id FROM llm_calls")
    before = schema(engine)
    with pytest.raises(StoreMisconfigured, match=r"materialized view kept depends on .* drop what"):
        partition(engine)
    assert before == schema(engine)
    assert [] == look_at(engine)


def test_a_call_of_no_month_waits_in_the_default_partition_until_its_month_is_made(
    engine: sa.Engine, postgres_uri: str
) -> None:
    by_month(postgres_uri)
    early = AHEAD[-1].plus(1)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {NOW.table}")
        connection.exec_driver_sql("CREATE ROLE no_owner_of_these")
    late, now = of_month(NOW.plus(-2)), of_month(NOW)
    far = [of_month(early), numbered(id=fixed_id("x", 10**15))]
    with sink_as(postgres_uri, "no_owner_of_these") as sink:
        assert [] == sink.write([encode(one) for one in (late, now, *far)])
    assert {DEFAULT: 4} == held(postgres_uri)

    assert [NOW.plus(-2), NOW] == keep_ahead(engine)
    assert {NOW.plus(-2).table: 1, NOW.table: 1, DEFAULT: 2} == held(postgres_uri)
    assert [] == keep_ahead(engine)
    proof = verify(postgres_uri)
    assert (True, 4) == (proof.intact, proof.calls)
    assert_true_sums(postgres_uri)


class sink_as:
    """A sink of a role that may write rows and change no table."""

    def __init__(self, uri: str, role: str) -> None:
        self._engine = sa.create_engine(uri, poolclass=sa.pool.NullPool)
        self._uri = uri
        self._role = role

    def __enter__(self) -> BulkSink:
        with self._engine.begin() as connection:
            every = "ALL TABLES IN SCHEMA public"
            connection.exec_driver_sql(f"ALTER ROLE {self._role} LOGIN")
            connection.exec_driver_sql(
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {every} TO {self._role}"
            )
            connection.exec_driver_sql(
                f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {self._role}"
            )
        url = sa.make_url(self._uri).set(username=self._role)
        self._sink = open_bulk_sink(url.render_as_string(hide_password=False))
        return self._sink

    def __exit__(self, *exc: object) -> None:
        self._sink.close()
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {self._role}")
            connection.exec_driver_sql(f"DROP ROLE {self._role}")


def test_whoever_stores_calls_and_owns_the_tables_makes_the_months_ahead(
    engine: sa.Engine, postgres_uri: str
) -> None:
    by_month(postgres_uri)
    with engine.begin() as connection:
        for month in AHEAD[1:]:
            connection.exec_driver_sql(f"DROP TABLE {month.table}")
    assert [NOW] == look_at(engine)
    sink = open_bulk_sink(postgres_uri)
    assert [] == sink.write([encode(a_call())])
    sink.close()
    assert AHEAD == look_at(engine)


def test_steps_go_back_and_forward_over_months(engine: sa.Engine, postgres_uri: str) -> None:
    store(postgres_uri, [numbered(tags={"team": "a"}), of_month(NOW.plus(-1))])
    by_month(postgres_uri)
    before, rows = schema(engine), contents(engine)
    migrate_back(engine, 3)
    migrate(engine)
    assert (before, rows["llm_calls"]) == (schema(engine), contents(engine)["llm_calls"])
    migrate_back(engine, 0)
    there = sa.inspect(engine).get_table_names()
    assert ["llm_schema"] == [name for name in there if name.startswith("llm_")]
    by_month(postgres_uri)
    assert AHEAD == look_at(engine)


def test_nothing_is_lost_while_calls_are_stored_and_two_owners_change_the_table(
    engine: sa.Engine, postgres_uri: str
) -> None:
    open_bulk_sink(postgres_uri).close()
    stop, going = threading.Event(), threading.Semaphore(0)

    def write() -> list[str]:
        sink, ids = open_bulk_sink(postgres_uri), list[str]()
        while not stop.is_set():
            batch = [a_call(id=new_id(), start_ns=time.time_ns()) for _ in range(20)]
            while True:
                try:
                    assert [] == sink.write([encode(call) for call in batch])
                    break
                except StoreUnavailable:  # as shipping does: the same batch again
                    stop.wait(0.01)
            ids += [call.id for call in batch]
            going.release()
        sink.close()
        return ids

    def more() -> None:
        for _ in range(6):
            assert going.acquire(timeout=60)

    def ask() -> int:
        answers = 0
        with Ledger(postgres_uri) as ledger:
            while not stop.is_set():
                ledger.recent(5)
                ledger.over().sums()
                answers += 1
        return answers

    with ThreadPoolExecutor(5) as pool:
        writers, reader = [pool.submit(write) for _ in range(2)], pool.submit(ask)
        try:
            for change in (partition, one_table, partition):
                more()
                two = [pool.submit(change, engine) for _ in range(2)]
                assert [True, True] == [one.result(120) is not None for one in two]
            more()
        finally:
            stop.set()
        stored = [one for writer in writers for one in writer.result(60)]
        assert reader.result(60) > 0
    with engine.connect() as connection:
        there = list(connection.exec_driver_sql("SELECT id FROM llm_calls").scalars())
    assert sorted(stored) == sorted(there)
    assert len(stored) == counted(postgres_uri)
    assert {NOW.table: len(stored)} == held(postgres_uri)
    assert verify(postgres_uri, processes=1).intact


def ledger_only(uri: str, calls: list[Any]) -> None:
    sink = open_sink(Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as="ledger"))
    assert [] == sink.write([encode(one) for one in calls])
    sink.close()


def cut_off() -> int:
    """The first millisecond of the month before this one."""
    return int(NOW.plus(-1).first[:12], 16)


def purge_all(uri: str) -> int:
    done = purge(uri, cut_off(), by="cron", reason="policy", everything=True, vacuum=False)
    return done.calls


def test_a_purge_drops_whole_months_and_keeps_chain_and_sums(
    engine: sa.Engine, postgres_uri: str, tmp_path: Path
) -> None:
    old, older, kept = NOW.plus(-2), NOW.plus(-3), NOW.plus(-1)
    job = Job(id=new_id(), producer="1" * 32, seq=10**6, start_ns=NOW_NS, name="nightly")
    place = Place(root_id=job.id, parent_id=job.id, experiment="Default")
    rich = [of_month(old, 50, parent_id=job.id, place=place), of_month(old, 51)]
    store(postgres_uri, [job, *rich])
    alone = [of_month(month, n, tags={"team": "a"}) for month in (old, older) for n in range(20)]
    misplaced = of_month(older, 99, id=fixed_id("now", NOW_NS))
    young_in_old = numbered(id=of_month(older.plus(-1)).id)
    ledger_only(postgres_uri, [*alone, misplaced, young_in_old, of_month(kept, 1), of_month(NOW)])
    by_month(postgres_uri)

    assert 43 == purge_all(postgres_uri)

    assert [older.plus(-1), kept, *AHEAD] == look_at(engine)
    assert {older.plus(-1).table: 1, kept.table: 1, NOW.table: 1} == held(postgres_uri)
    assert 0 == scalar(postgres_uri, "SELECT count(*) FROM llm_tags")
    assert 1 == scalar(postgres_uri, "SELECT count(*) FROM runs")
    assert_true_sums(postgres_uri)
    proof = verify(postgres_uri)
    assert (True, 3, 0) == (proof.intact, proof.calls, proof.outside)
    told = [(msgspec.json.decode(e.note).get("month"), e.records) for e in proof.events]
    assert [(str(older), 20), (str(old), 20)] == [one for one in told if one[0]]
    assert 0 == purge_all(postgres_uri)


def test_a_purge_drops_a_month_that_nobody_had_made(engine: sa.Engine, postgres_uri: str) -> None:
    by_month(postgres_uri)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE writer_of_old_calls")
    with sink_as(postgres_uri, "writer_of_old_calls") as sink:
        assert [] == sink.write([encode(of_month(NOW.plus(-2)))])
    assert {DEFAULT: 1} == held(postgres_uri)
    assert 1 == purge_all(postgres_uri)
    assert {} == held(postgres_uri)
    assert verify(postgres_uri).intact


def test_a_call_of_a_dropped_month_that_is_put_back_by_hand_is_found_and_a_late_one_is_not(
    postgres_uri: str, tmp_path: Path
) -> None:
    old = NOW.plus(-2)
    calls = [of_month(old, n) for n in range(3)]
    ledger_only(postgres_uri, calls)
    execute(postgres_uri, "CREATE TABLE aside AS SELECT * FROM llm_calls")
    by_month(postgres_uri)
    assert 3 == purge_all(postgres_uri)
    ledger_only(postgres_uri, [calls[0], of_month(old, 7)])
    assert {old.table: 2} == held(postgres_uri)
    assert (True, 2) == (verify(postgres_uri).intact, verify(postgres_uri).calls)

    execute(
        postgres_uri, "INSERT INTO llm_calls SELECT * FROM aside WHERE id = :id", id=calls[1].id
    )

    found = [tuple(one) for one in verify(postgres_uri).differences if one.table == "llm_calls"]
    assert [("added", "llm_calls", calls[1].id)] == found


def test_who_owns_no_table_purges_row_by_row(engine: sa.Engine, postgres_uri: str) -> None:
    old = NOW.plus(-2)
    ledger_only(postgres_uri, [of_month(old, n) for n in range(3)])
    by_month(postgres_uri)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE purger_of_rows")
    with sink_as(postgres_uri, "purger_of_rows"):
        url = sa.make_url(postgres_uri).set(username="purger_of_rows")
        assert 3 == purge_all(url.render_as_string(hide_password=False))
    assert old in look_at(engine)
    assert {} == held(postgres_uri)
    assert verify(postgres_uri).intact


def run(uri: str, *arguments: str, how: str = "") -> tuple[int, str]:
    environ = {"FLOWLEDGER_PARTITION_CALLS": how} if how else {}
    done = CliRunner().invoke(main, [*arguments, "--backend-store-uri", uri], env=environ)
    return done.exit_code, done.output


def test_migrate_does_what_the_setting_says_and_status_tells(postgres_uri: str) -> None:
    store(postgres_uri, [numbered()])
    assert "by month" not in run(postgres_uri, "migrate", "--status")[1]
    code, said = run(postgres_uri, "migrate", how="month")
    assert (0, True) == (code, f"1 calls moved to {NOW.table}" in said)
    told = f"calls are kept by month: {NOW} to {AHEAD[-1]}, 3 made ahead"
    assert told == run(postgres_uri, "migrate", "--status")[1].splitlines()[-1]
    execute(postgres_uri, f"DROP TABLE {AHEAD[2].table}")
    assert "1 made ahead" in run(postgres_uri, "migrate", "--status")[1]
    assert f"calls have a place for {AHEAD[2]}" in run(postgres_uri, "migrate")[1]
    assert "calls are in one table again" in run(postgres_uri, "migrate", how="none")[1]
    assert "by month" not in run(postgres_uri, "migrate", "--status")[1]


def test_a_partition_that_somebody_made_by_hand_loses_nothing_on_the_way_back(
    engine: sa.Engine, postgres_uri: str
) -> None:
    by_month(postgres_uri)
    before = "CREATE TABLE \"by Hand\" PARTITION OF llm_calls FOR VALUES FROM ('0') TO ('015')"
    execute(postgres_uri, before)
    store(postgres_uri, [numbered(), numbered(id="0" * 31 + "1")])
    assert {'"by Hand"': 1, NOW.table: 1} == held(postgres_uri)
    assert one_table(engine)
    assert {"llm_calls": 2} == held(postgres_uri)


def test_a_server_that_starts_heeds_the_setting_where_it_may(
    engine: sa.Engine,
    postgres_uri: str,
    sqlite_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FLOWLEDGER_PARTITION_CALLS", "month")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", postgres_uri)
    prepare_server()
    assert AHEAD == look_at(engine)
    monkeypatch.setenv("FLOWLEDGER_PARTITION_CALLS", "none")
    prepare_server()
    assert AHEAD == look_at(engine)
    monkeypatch.setenv("FLOWLEDGER_PARTITION_CALLS", "month")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", sqlite_uri)
    with pytest.raises(SystemExit, match="2"):
        prepare_server()
    assert "partition_calls=month needs PostgreSQL" in capsys.readouterr().out


def test_months_are_refused_on_sqlite_with_what_to_change(sqlite_uri: str) -> None:
    code, said = run(sqlite_uri, "migrate", how="month")
    assert (2, True) == (code, "needs PostgreSQL: leave it out here" in said)
    assert 0 == run(sqlite_uri, "migrate", how="none")[0]
    code, said = run(sqlite_uri, "migrate", how="year")
    assert (2, True) == (code, "use one of month, none" in said)


def test_an_export_with_a_call_of_a_dropped_month_does_not_pass(
    postgres_uri: str, tmp_path: Path
) -> None:
    old, place = NOW.plus(-2), config.load({}, tracking_uri=postgres_uri, home=str(tmp_path))
    make_key(key_path(place))
    call = of_month(old)
    ledger_only(postgres_uri, [call, of_month(NOW)])
    execute(postgres_uri, "CREATE TABLE aside AS SELECT * FROM llm_calls")
    by_month(postgres_uri)
    purge_all(postgres_uri)
    file = tmp_path / "whole.jsonl"
    export(place, 0, 2**50, file)
    assert [] == verify_file(file).problems
    execute(postgres_uri, "INSERT INTO llm_calls SELECT * FROM aside WHERE id = :id", id=call.id)
    file = tmp_path / "put_back.jsonl"
    export(place, 0, 2**50, file)
    assert [f"call {call.id} was added in llm_calls"] == verify_file(file).problems


def test_doctor_and_metrics_tell_when_the_months_ahead_run_out(
    home: Path, postgres_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(postgres_uri, [numbered()])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres_uri)
    assert (None, None, []) == told_ahead(postgres_uri)
    by_month(postgres_uri)
    assert (3, 3, []) == told_ahead(postgres_uri)
    for month in AHEAD[1:]:
        execute(postgres_uri, f"DROP TABLE {month.table}")
    wrong = ["run `flowledger migrate` as the owner of the tables"]
    assert (0, 0, wrong) == told_ahead(postgres_uri)
    assert "0 months after this one are made" in CliRunner().invoke(main, ["doctor"]).output
    execute(postgres_uri, f"DROP TABLE {NOW.table}")
    assert (-1, -1, wrong) == told_ahead(postgres_uri)


def told_ahead(uri: str) -> tuple[int | None, int | None, list[str]]:
    """What doctor and /metrics say, and what doctor wants done."""
    report, database = examine(), Database(uri)
    with Ledger(uri) as ledger:
        standing = ask_standing(ledger, database, 20)
    database.close()
    assert report.store is not None
    families = {one.name: int(one.samples[0].value) for one in standing.collect() if one.samples}
    to_do = [problem.do.partition(", from cron")[0] for problem in report.problems]
    return report.store.months_ahead, families.get("flowledger_months_ahead"), to_do
