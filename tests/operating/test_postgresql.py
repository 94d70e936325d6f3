"""PostgreSQL as it is run: through PgBouncer, with roles of least rights, and with time-outs."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from flowledger.cli import main
from flowledger.config import Destination
from flowledger.errors import StoreMisconfigured, StoreUnavailable
from flowledger.questions import Ledger
from flowledger.records import (
    Artifact,
    Gap,
    Gone,
    Job,
    Logged,
    Metric,
    Place,
    Producer,
    Record,
    Span,
    encode,
    new_id,
)
from flowledger.store import open_sink
from flowledger.store.partitions import partition
from tests.calls import a_call
from tests.conftest import postgres_database
from tests.faults.processes import Host, slow
from tests.faults.processes import Ledger as Stored
from tests.needs import cannot_run, need_program
from tests.operating.postgres import BIN, Load, assert_all_there, changed, own_postgres, pgbouncer
from tests.server_client import rows, running
from tests.servers import free_port
from tests.test_evidence_proof import execute
from tests.test_server_auth import ADMIN, basic, make_user, server_with_users

ROLES = Path(__file__).parents[2] / "deploy" / "postgresql" / "roles.sql"
READY = "/api/flowledger/v1/ready"


def destination(uri: str, statement_seconds: float = 40.0) -> Destination:
    return Destination(
        tracking_uri=uri,
        artifact_root="/nonexistent",
        store_as="run+trace",
        statement_seconds=statement_seconds,
    )


@slow
def test_a_server_under_load_works_through_pgbouncer(postgres_uri: str, tmp_path: Path) -> None:
    with (
        pgbouncer(postgres_uri) as uri,
        running(uri, tmp_path, workers=2) as server,
        Load(lambda: [server], senders=4) as load,
    ):
        load.more(20)
        for _ in range(12):  # more often than psycopg takes to prepare a statement
            assert 200 == server.get(READY).status
            answer = server.get("/api/analytics/mlflow/overview")
            assert (200, True) == (answer.status, answer.json()["total_runs"] > 0)
            assert 200 == server.get("/api/2.0/mlflow/experiments/search?max_results=5").status
    assert_all_there(postgres_uri, load.calls)


@slow
def test_an_application_and_its_collector_work_through_pgbouncer(
    host: Host, postgres_uri: str, tmp_path: Path
) -> None:
    with pgbouncer(postgres_uri) as uri:
        application = host.start(uri)
        made = application.ask("calls", count=200)
        assert application.ask("flush")
        Stored(postgres_uri).wait_for_once(made["calls"], host)
        host.clean_up()


@slow
@pytest.mark.usefixtures("postgres_server")
def test_a_database_that_sorts_hex_in_a_way_of_its_own_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(prefix="flowledger-danish-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's own user reads it
        made = ("localedef", "-i", "da_DK", "-f", "UTF-8", f"{folder}/da_DK.UTF-8")
        need_program("localedef", "libc-bin")
        if subprocess.run(made, capture_output=True).returncode:
            cannot_run("the sources of locales are not installed: apt-get install locales")
        monkeypatch.setenv("LOCPATH", folder)
        with own_postgres() as server:
            plain = sa.create_engine(server.uri, isolation_level="AUTOCOMMIT")
            with plain.connect() as connection:
                connection.exec_driver_sql(
                    "CREATE DATABASE danish TEMPLATE template0 LOCALE 'da_DK.UTF-8'"
                )
            plain.dispose()
            danish = sa.create_engine(
                changed(server.uri, database="danish"), poolclass=sa.pool.NullPool
            )
            with pytest.raises(StoreMisconfigured, match=r"restore .* LOCALE 'C.UTF-8'"):
                partition(danish)


@slow
def test_a_server_under_load_loses_nothing_while_calls_move_into_months_and_back(
    postgres_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        running(postgres_uri, tmp_path, workers=2) as server,
        Load(lambda: [server], senders=4) as load,
    ):
        load.more(10)
        for how in ("month", "none", "month"):
            monkeypatch.setenv("FLOWLEDGER_PARTITION_CALLS", how)
            done = CliRunner().invoke(main, ["migrate", "--backend-store-uri", postgres_uri])
            assert (0, True) == (done.exit_code, "moved" in done.output), done.output
            load.more(10)
            assert 200 == server.get("/api/analytics/mlflow/overview").status
    assert_all_there(postgres_uri, load.calls)


@pytest.fixture(scope="module")
def roles(postgres_server: str) -> Iterator[str]:
    """A database after `roles.sql`, the steps as the owner, and `roles.sql` again."""
    with postgres_database(postgres_server) as uri:
        yield prepared(uri, "--users")


def prepared(postgres: str, *more: str) -> str:
    run_roles(postgres)
    migrate_as_owner(postgres, *more)
    run_roles(postgres)
    return postgres


def migrate_as_owner(postgres: str, *more: str) -> None:
    owner = as_role(postgres, "flowledger_owner")
    done = CliRunner().invoke(main, ["migrate", *more, "--backend-store-uri", owner])
    assert 0 == done.exit_code, done.output


def run_roles(postgres: str) -> None:
    url = sa.make_url(postgres)
    place = ("-h", str(url.query["host"]), "-U", str(url.username), "-d", str(url.database))
    psql = (str(BIN / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1")
    done = subprocess.run([*psql, *place, "-f", str(ROLES)], capture_output=True, text=True)
    assert (0, "") == (done.returncode, done.stderr)


def as_role(postgres: str, role: str) -> str:
    return changed(postgres, username=role)


def refused(postgres: str, role: str, statement: str) -> str:
    """What PostgreSQL says to a role that tries this."""
    engine = sa.create_engine(as_role(postgres, role), poolclass=sa.pool.NullPool)
    with pytest.raises(sa.exc.DBAPIError) as told, engine.begin() as connection:
        connection.exec_driver_sql(statement)
    return str(told.value.orig)


def test_a_server_works_as_the_writer_and_questions_as_the_reader(
    roles: str, tmp_path: Path
) -> None:
    calls = [a_call(cost_usd=0.5, tags={"team": "a"}) for _ in range(5)]
    with running(as_role(roles, "flowledger_writer"), tmp_path, workers=1) as server:
        assert 200 == server.get(READY).status
        assert 200 == server.post_calls(calls).status
        assert 200 == server.get("/api/2.0/mlflow/experiments/search?max_results=5").status
    assert_all_there(roles, calls)
    with Ledger(as_role(roles, "flowledger_reader")) as ledger:
        assert 5 == ledger.over().sums().calls
        assert {call.id for call in calls} == {row.id for row in ledger.recent(10)}


def test_a_collector_stores_everything_that_applications_record(roles: str, tmp_path: Path) -> None:
    about: dict[str, Any] = {"producer": new_id(), "start_ns": time.time_ns(), "experiment": "new"}
    job = Job(**about, id=new_id(), seq=1, name="job", running=True)
    place = Place(root_id=job.id, parent_id=job.id, experiment="new")
    records: list[Record] = [
        Producer(id=about["producer"], producer=about["producer"], host="here"),
        job,
        Logged(**about, id=new_id(), seq=2, run_id=job.id, params={"a": 1}, tags={"b": "2"}),
        Logged(
            **about,
            id=new_id(),
            seq=3,
            run_id=job.id,
            metrics=[Metric(key="m", value=1.0, timestamp_ms=1)],
        ),
        Span(**about, id=new_id(), seq=4, name="step", place=place),
        Artifact(**about, id=new_id(), seq=5, run_id=job.id, path="a.txt", content=b"a"),
        a_call(**about, seq=6, cost_usd=0.5, tags={"team": "a"}, place=place),
        Gap(id=new_id(), producer=about["producer"], first_seq=7, last_seq=8, count=2),
        Gap(id=new_id(), producer=about["producer"], first_seq=7, last_seq=9, count=3),
        Gone(id=about["producer"], producer=about["producer"], start_ns=about["start_ns"]),
    ]
    place_of = destination(as_role(roles, "flowledger_collector"))
    sink = open_sink(msgspec.structs.replace(place_of, artifact_root=str(tmp_path)))
    assert [] == sink.write([encode(record) for record in records[:-2]])
    assert [] == sink.write([encode(record) for record in records])
    execute(roles, "UPDATE llm_calls SET group_id = NULL")  # as an older flowledger leaves them
    sink.close()
    later = open_sink(place_of)
    assert [0] == [refusal.place for refusal in later.write([b"no record", encode(a_call())])]
    later.close()
    assert [{"n": 0}] == rows(roles, "SELECT count(*) AS n FROM llm_calls WHERE group_id IS NULL")
    [run] = rows(roles, f"SELECT status FROM runs WHERE run_uuid = '{job.id}'")
    assert ("KILLED", 1) == (run["status"], len(list(tmp_path.rglob("a.txt"))))


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO llm_keys VALUES ('a', 'b', 'c', 1, NULL)",
        "UPDATE llm_keys SET revoked_ms = NULL",
        "SELECT * FROM llm_keys",
        "SELECT * FROM secrets",
        "SELECT password_hash FROM users",
        "UPDATE users SET is_admin = TRUE",
        "INSERT INTO users (username, password_hash, is_admin) VALUES ('a', 'b', TRUE)",
        "UPDATE role_permissions SET permission = 'MANAGE'",
        "INSERT INTO secrets DEFAULT VALUES",
        "DELETE FROM registered_models",
        "UPDATE llm_calls SET cost_usd = 0",
        "DELETE FROM llm_calls",
        "UPDATE llm_senders SET user_name = 'mine'",
        "UPDATE llm_chain SET note = 'x'",
        "DELETE FROM llm_erasures",
        "UPDATE llm_schema SET breaking = FALSE",
        "CREATE TABLE mine (id INTEGER)",
    ],
)
def test_a_collector_cannot_change_calls_nor_keys_nor_users(roles: str, statement: str) -> None:
    assert "permission denied" in refused(roles, "flowledger_collector", statement)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE llm_calls",
        "ALTER TABLE llm_calls ADD COLUMN more TEXT",
        "TRUNCATE llm_calls",
        "CREATE TABLE mine (id INTEGER)",
        "CREATE INDEX mine ON llm_calls (model)",
        "DROP VIEW llm_measured",
    ],
)
def test_the_writer_cannot_change_tables(roles: str, statement: str) -> None:
    said = refused(roles, "flowledger_writer", statement)
    assert "must be owner" in said or "permission denied" in said


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM llm_calls",
        "UPDATE llm_calls SET cost_usd = 0",
        "INSERT INTO llm_producers VALUES ('a', 'b', 1, 'c', 'd', 'e', 1)",
        "SELECT * FROM llm_keys",
        "SELECT password_hash FROM users",
        "SELECT * FROM secrets",
        "SELECT * FROM webhooks",
        "CREATE TABLE mine (id INTEGER)",
    ],
)
def test_the_reader_cannot_write_nor_see_keys_and_passwords(roles: str, statement: str) -> None:
    writable = f"SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; COMMIT; {statement}"
    assert "permission denied" in refused(roles, "flowledger_reader", writable)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE llm_chain SET note = 'x'",
        "DELETE FROM llm_chain",
        "UPDATE llm_schema SET breaking = FALSE",
        "DELETE FROM alembic_version",
        "DELETE FROM alembic_version_auth",
    ],
)
def test_the_writer_cannot_change_the_chain_nor_what_says_which_version_tables_are_of(
    roles: str, statement: str
) -> None:
    assert "permission denied" in refused(roles, "flowledger_writer", statement)


def test_a_server_with_mlflows_users_works_as_the_writer(roles: str, tmp_path: Path) -> None:
    search = "/api/2.0/mlflow/experiments/search?max_results=5"
    with server_with_users(as_role(roles, "flowledger_writer"), tmp_path) as server:
        assert 401 == server.get(search).status
        make_user(server, "ana")
        assert 200 == server.get(search, **basic("ana")).status
        assert 200 == server.post_calls([a_call()], **basic(ADMIN)).status
    names = rows(roles, "SELECT username FROM users ORDER BY id")
    assert ["admin", "ana"] == [row["username"] for row in names]


def test_a_server_that_may_not_make_mlflows_users_says_who_may(
    postgres_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "correct horse battery")
    monkeypatch.chdir(tmp_path)
    prepared(postgres_uri)
    uri = as_role(postgres_uri, "flowledger_writer")
    done = CliRunner().invoke(
        main,
        ["server", "--port", str(free_port()), "--auth", "basic", "--backend-store-uri", uri],
    )
    assert 3 == done.exit_code
    assert "run `flowledger migrate --users` as the owner of the tables" in done.output


def test_the_roles_go_on_over_calls_that_are_kept_by_month_and_over_new_tables(
    postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(postgres_uri)
    monkeypatch.setenv("FLOWLEDGER_PARTITION_CALLS", "month")
    # Somebody else may do it for the owner, whose tables they stay.
    done = CliRunner().invoke(main, ["migrate", "--backend-store-uri", postgres_uri])
    assert (0, True) == (done.exit_code, "moved to" in done.output)
    [owners] = rows(
        postgres_uri,
        "SELECT string_agg(DISTINCT tableowner, ',') AS names FROM pg_tables"
        " WHERE starts_with(tablename, 'llm_calls')",
    )
    assert {"names": "flowledger_owner"} == owners
    writer, reader = (as_role(postgres_uri, f"flowledger_{who}") for who in ("writer", "reader"))
    sink = open_sink(destination(writer))
    assert [] == sink.write([encode(a_call(cost_usd=0.5))])
    sink.close()
    with Ledger(reader) as ledger:
        assert (1, 1) == (len(ledger.recent()), ledger.over().sums().calls)
    migrate_as_owner(postgres_uri)

    execute(as_role(postgres_uri, "flowledger_owner"), "CREATE TABLE later (id INTEGER)")
    execute(writer, "INSERT INTO later VALUES (1)")
    assert "permission denied" in refused(postgres_uri, "flowledger_reader", "SELECT * FROM later")
    run_roles(postgres_uri)
    assert [{"id": 1}] == rows(reader, "SELECT id FROM later")


def test_a_statement_that_hangs_is_told_and_the_batch_stored_later(postgres_uri: str) -> None:
    sink = open_sink(destination(postgres_uri, statement_seconds=0.5))
    assert [] == sink.write([encode(a_call())])
    other = sa.create_engine(postgres_uri, poolclass=sa.pool.NullPool)
    call = encode(a_call())
    with other.connect() as connection:
        connection.exec_driver_sql("LOCK TABLE llm_calls IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="statement timeout"):
            sink.write([call])
    assert [] == sink.write([call])
    sink.close()
    assert 2 == Stored(postgres_uri).count()


def test_a_question_that_hangs_is_told(postgres_uri: str) -> None:
    sink = open_sink(destination(postgres_uri))
    sink.write([encode(a_call())])
    sink.close()
    other = sa.create_engine(postgres_uri, poolclass=sa.pool.NullPool)
    with Ledger(postgres_uri, statement_seconds=0.5) as ledger:
        with other.connect() as connection:
            connection.exec_driver_sql("LOCK TABLE llm_calls IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreUnavailable, match="statement timeout"):
                ledger.recent()
        assert 1 == len(ledger.recent())


def test_a_time_out_of_one_transaction_is_none_of_the_next_one_on_the_connection(
    postgres_uri: str,
) -> None:
    sink = open_sink(destination(postgres_uri, statement_seconds=7))
    with sink._writer.transaction() as cursor:  # type: ignore[attr-defined]
        cursor.execute("SHOW statement_timeout")
        assert ("7s",) == cursor.fetchone()
    raw = sink._writer.engine.raw_connection()  # type: ignore[attr-defined]
    cursor = raw.cursor()
    cursor.execute("SHOW statement_timeout")
    assert ("0",) == cursor.fetchone()
    raw.close()
    sink.close()
