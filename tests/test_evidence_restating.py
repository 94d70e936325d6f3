"""Attacks on the evidence log itself: history before a kept head cannot be stated anew unseen."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from flowledger.audit.bundle import export, verify_file
from flowledger.audit.erasure import purge
from flowledger.audit.proof import Proof, open_proven, verify
from flowledger.audit.signing import key_path, load_key, make_key, public_text
from flowledger.cli import main
from flowledger.config import load
from flowledger.records import Gone, Job, Logged, Metric, Producer, new_id
from flowledger.store.chain import Link, current_leaves, row_leaves
from flowledger.store.corrections import remove_rows
from flowledger.store.leaves import Leaves
from flowledger.store.rollup import rebuild
from tests.calls import NOW_NS
from tests.test_evidence_proof import (
    PRODUCER,
    execute,
    named,
    numbered,
    numbers,
    rich_call,
    sink_of,
    store,
)

NOW_MS = NOW_NS // 10**6
EVERYTHING = {"by": "dpo", "reason": "policy 7", "everything": True, "vacuum": False}


def add_up_anew(uri: str) -> None:
    """Make the sums those of the calls, as an attacker would."""
    engine = sa.create_engine(uri)
    with engine.begin() as connection:
        rebuild(connection.exec_driver_sql, 0, 10**5)
    engine.dispose()


def forge(uri: str, kind: str, leaves: Leaves, at_ms: int | None = None) -> None:
    """Append an entry with a right hash, by plain SQL."""
    engine = sa.create_engine(uri)
    with engine.begin() as connection:
        query = "SELECT number, hash FROM llm_chain ORDER BY number DESC LIMIT 1"
        number, previous = connection.exec_driver_sql(query).one()
        now_ms = time.time_ns() // 10**6 if at_ms is None else at_ms
        data = msgspec.msgpack.encode(leaves)
        made = Link(number + 1, kind, now_ms, leaves.size, "", data, "")
        made = made._replace(hash=made.hashed(previous))
        table = sa.Table("llm_chain", sa.MetaData(), autoload_with=connection)
        connection.execute(table.insert().values(**made._asdict()))
    engine.dispose()


def state_again(uri: str, kind: str, ids: list[str]) -> None:
    """Append an entry that states these records as they now stand."""
    with open_proven(uri) as (writer, cursor):
        leaves = current_leaves(writer, cursor, ids)
    forge(uri, kind, leaves)


def falsify(uri: str, call_id: str) -> None:
    """Change what a call cost, and add up the sums anew."""
    execute(uri, "UPDATE llm_calls SET cost_usd = 0.5 WHERE id = :id", id=call_id)
    add_up_anew(uri)


def remove(uri: str, ids: list[str]) -> None:
    """Delete every row of these calls, and add up the sums anew."""
    with sink_of(uri) as sink, sink._writer.transaction() as cursor:
        remove_rows(sink._writer, cursor, ids)
    add_up_anew(uri)


@pytest.mark.parametrize("kind", ["batch", "jobs"])
def test_a_call_before_the_head_that_a_later_batch_states_again_is_found(
    database_uri: str, kind: str
) -> None:
    call = rich_call()
    store(database_uri, [call, rich_call()])
    head = verify(database_uri).head
    falsify(database_uri, call.id)
    state_again(database_uri, kind, [call.id])

    proof = verify(database_uri, head)

    assert (False, True) == (proof.intact, proof.anchored)
    assert {("restated", "llm_calls", call.id), ("changed", "llm_calls", call.id)} == named(proof)


def test_a_call_that_is_stated_again_far_behind_is_found(sqlite_uri: str) -> None:
    calls = [rich_call() for _ in range(3)]
    for call in calls:
        store(sqlite_uri, [call])
    falsify(sqlite_uri, calls[0].id)
    state_again(sqlite_uri, "batch", [calls[0].id])
    found = [named(verify(sqlite_uri, processes=processes)) for processes in (1, 2)]
    expected = {(what, "llm_calls", calls[0].id) for what in ("restated", "changed")}
    assert [expected, expected] == found


def test_an_entry_of_a_kind_that_nobody_knows_is_refused(database_uri: str) -> None:
    call = rich_call()
    store(database_uri, [call])
    falsify(database_uri, call.id)
    state_again(database_uri, "Batch", [call.id])
    expected = {("unknown kind", "llm_chain", "3"), ("changed", "llm_calls", call.id)}
    assert expected == named(verify(database_uri))


def test_an_entry_that_cannot_be_read_is_a_difference(sqlite_uri: str) -> None:
    store(sqlite_uri, [rich_call()])
    engine = sa.create_engine(sqlite_uri)
    with engine.begin() as connection:
        query = "SELECT hash FROM llm_chain ORDER BY number DESC LIMIT 1"
        previous = connection.exec_driver_sql(query).scalar_one()
        made = Link(3, "batch", time.time_ns() // 10**6, 0, "", b"\xc1", "")
        table = sa.Table("llm_chain", sa.MetaData(), autoload_with=connection)
        row = made._replace(hash=made.hashed(previous))._asdict()
        connection.execute(table.insert().values(**row))
    engine.dispose()
    assert {("unreadable", "llm_chain", "3")} == named(verify(sqlite_uri))


def test_a_call_that_a_batch_without_rows_takes_away_is_found(database_uri: str) -> None:
    gone = rich_call()
    store(database_uri, [gone, rich_call()])
    head = verify(database_uri).head
    remove(database_uri, [gone.id])
    forge(database_uri, "batch", Leaves([[]], [(bytes.fromhex(gone.id), 0, b"")]))

    proof = verify(database_uri, head)

    assert ("restated", "llm_calls", gone.id) in named(proof)
    assert ("removed", "llm_calls", gone.id) in named(proof)


def test_a_process_that_is_taken_away_with_all_its_calls_is_found(database_uri: str) -> None:
    calls = [rich_call() for _ in range(3)]
    job = Job(id=new_id(), producer=PRODUCER, seq=next(numbers), start_ns=NOW_NS)
    store(database_uri, [Producer(id=PRODUCER, producer=PRODUCER, host="here"), *calls, job])
    head = verify(database_uri).head
    ids = [call.id for call in calls]
    remove(database_uri, ids)
    for table, column in (("llm_producers", "id"), ("llm_records", "producer_id")):
        execute(database_uri, f"DELETE FROM {table} WHERE {column} = :id", id=PRODUCER)
    gone = [bytes.fromhex(one) for one in (*ids, PRODUCER)]
    forge(database_uri, "batch", Leaves([[]], [(one, 0, b"") for one in gone]))

    found = named(verify(database_uri, head))

    assert {("restated", "llm_calls", one) for one in ids} <= found
    expected = {("removed", table, PRODUCER) for table in ("llm_producers", "llm_records")}
    assert expected <= found


def test_a_purged_call_that_is_delivered_again_is_no_tampering(database_uri: str) -> None:
    call, other = rich_call(), rich_call()
    store(database_uri, [call, other])
    purge(database_uri, NOW_MS + 1000, **EVERYTHING)  # type: ignore[arg-type]
    store(database_uri, [call])
    proof = verify(database_uri)
    assert (True, [], 1) == (proof.intact, proof.differences, proof.calls)

    falsify(database_uri, call.id)
    assert {("changed", "llm_calls", call.id)} == named(verify(database_uri))
    state_again(database_uri, "batch", [call.id])
    expected = {(what, "llm_calls", call.id) for what in ("restated", "changed")}
    assert expected == named(verify(database_uri))


def test_a_call_whose_content_was_purged_and_that_is_delivered_again_stays_as_it_was(
    database_uri: str,
) -> None:
    call = rich_call()
    store(database_uri, [call])
    purge(database_uri, NOW_MS + 1000, by="dpo", reason="policy 7", vacuum=False)
    head = verify(database_uri).head
    store(database_uri, [call])
    proof = verify(database_uri, head)
    assert (True, head, 1) == (proof.intact, proof.head, proof.calls)


def test_a_purged_call_that_is_put_back_by_hand_is_found(database_uri: str) -> None:
    call = rich_call()
    store(database_uri, [call])
    execute(database_uri, "CREATE TABLE aside AS SELECT * FROM llm_calls")
    purge(database_uri, NOW_MS + 1000, **EVERYTHING)  # type: ignore[arg-type]
    execute(database_uri, "INSERT INTO llm_calls SELECT * FROM aside")
    add_up_anew(database_uri)
    assert {("added", "llm_calls", call.id)} == named(verify(database_uri))


def ended_job() -> Job:
    return Job(
        id=new_id(), producer=PRODUCER, seq=next(numbers), start_ns=NOW_NS, name="n", running=False
    )


JOB_ROWS: dict[str, Callable[[str], tuple[object, ...]]] = {
    "runs": lambda job: (job,),
    "trace_info": lambda job: (f"tr-{job}",),
    "params": lambda job: (job, "p"),
}
JOB_CHANGES = {
    "runs": "UPDATE runs SET status = 'FAILED' WHERE run_uuid = :id",
    "trace_info": "UPDATE trace_info SET execution_time_ms = 7 WHERE request_id = 'tr-' || :id",
    "params": "UPDATE params SET value = 'x' WHERE run_uuid = :id",
}


@pytest.mark.parametrize("table", list(JOB_ROWS))
def test_a_job_that_has_ended_is_not_stated_again(database_uri: str, table: str) -> None:
    job = msgspec.structs.replace(ended_job(), params={"p": 1})
    store(database_uri, [job])
    assert 1 == execute(database_uri, JOB_CHANGES[table], id=job.id)
    with open_proven(database_uri) as (writer, cursor):
        forged = row_leaves(writer, cursor, [(table, JOB_ROWS[table](job.id))])
    forge(database_uri, "jobs", Leaves(rows=forged))
    expected = {(what, table, job.id) for what in ("restated", "changed")}
    assert expected == named(verify(database_uri))


def test_a_running_job_is_stated_again_until_it_ends(database_uri: str) -> None:
    job = msgspec.structs.replace(ended_job(), running=True)
    killed = msgspec.structs.replace(ended_job(), running=True, producer="2" * 32)
    store(database_uri, [job, killed])
    head = verify(database_uri).head
    for step in range(2):
        logged = Logged(
            id=new_id(),
            producer=PRODUCER,
            seq=next(numbers),
            run_id=job.id,
            metrics=[Metric(key="done", value=float(step), timestamp_ms=step, step=step)],
            tags={"phase": f"{step}"},
        )
        store(database_uri, [logged])
    store(database_uri, [msgspec.structs.replace(job, running=False, seq=next(numbers))])
    store(database_uri, [Gone(id=new_id(), producer="2" * 32, start_ns=NOW_NS + 10**9)])
    assert [] == verify(database_uri, head).differences


def test_an_event_since_the_head_is_listed_and_fails_unless_its_kind_is_allowed(
    database_uri: str,
) -> None:
    calls = [rich_call() for _ in range(3)]
    store(database_uri, calls)
    with sink_of(database_uri) as sink:
        sink.correct(calls[0])
        head = verify(database_uri).head
        sink.correct(numbered(id=calls[1].id, response="Better."))
        sink.remove([calls[2].id])

    def judged(**given: object) -> tuple[bool, list[tuple[str, bool, bool]]]:
        proof: Proof = verify(database_uri, **given)  # type: ignore[arg-type]
        return proof.intact, [(one.kind, one.since_head, one.allowed) for one in proof.events]

    old = ("correction", False, True)
    assert judged() == (True, [old, old, ("removal", False, True)])
    corrected, gone = ("correction", True, False), ("removal", True, False)
    assert judged(head=head) == (False, [old, corrected, gone])
    corrected = ("correction", True, True)
    assert judged(head=head, allow=["correction"]) == (False, [old, corrected, gone])
    gone = ("removal", True, True)
    assert judged(head=head, allow=["correction", "removal"]) == (True, [old, corrected, gone])


def test_the_command_prints_every_event_since_the_head(
    sqlite_uri: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWLEDGER_TRACKING_URI", sqlite_uri)
    call = rich_call()
    store(sqlite_uri, [call])
    head = verify(sqlite_uri).head
    falsify(sqlite_uri, call.id)
    state_again(sqlite_uri, "correction", [call.id])
    for _ in range(12):
        forge(sqlite_uri, "correction", Leaves())
    cli = CliRunner()
    failed = cli.invoke(main, ["evidence", "verify", "--head", head])
    assert (1, 13) == (failed.exit_code, failed.output.count("correction of"))
    assert "NOT INTACT: 13 events since the head" in failed.output
    allowed = ["evidence", "verify", "--head", head, "--allow", "correction"]
    fine = cli.invoke(main, allowed)
    assert (0, 13) == (fine.exit_code, fine.output.count("correction of"))
    assert 2 == cli.invoke(main, ["evidence", "verify", "--allow", "batch"]).exit_code


def test_times_in_the_log_that_go_back_are_found(database_uri: str) -> None:
    store(database_uri, [rich_call()])
    year_ms = 365 * 86_400_000
    forge(database_uri, "batch", Leaves(), at_ms=time.time_ns() // 10**6 - year_ms)
    assert {("dated back", "llm_chain", "3")} == named(verify(database_uri))


def test_a_clock_that_steps_back_does_not_take_the_log_with_it(database_uri: str) -> None:
    store(database_uri, [rich_call()])
    ahead_ms = time.time_ns() // 10**6 + 3_600_000
    forge(database_uri, "batch", Leaves(), at_ms=ahead_ms)
    store(database_uri, [rich_call()])
    assert verify(database_uri).intact
    engine = sa.create_engine(database_uri)
    with engine.connect() as connection:
        last = connection.exec_driver_sql("SELECT max(at_ms) FROM llm_chain WHERE number = 4")
        assert ahead_ms == last.scalar_one()
    engine.dispose()


def test_a_bundle_tells_a_call_that_was_stated_again(database_uri: str, tmp_path: Path) -> None:
    call, gone = rich_call(), rich_call()
    store(database_uri, [call, gone, rich_call()])
    head = verify(database_uri).head
    falsify(database_uri, call.id)
    state_again(database_uri, "batch", [call.id])
    remove(database_uri, [gone.id])
    forge(database_uri, "batch", Leaves([[]], [(bytes.fromhex(gone.id), 0, b"")]))
    made = load({}, tracking_uri=database_uri, home=str(tmp_path / "home"))
    make_key(key_path(made))
    public = public_text(load_key(key_path(made)))
    file = tmp_path / "forged.jsonl"
    export(made, NOW_MS - 1000, NOW_MS + 1000, file)

    checked = verify_file(file, key=public, head=head)

    told = [f"call {one} was stated again, and by no event" for one in (call.id, gone.id)]
    assert set(told) <= set(checked.problems)


def test_a_bundle_lists_events_since_the_head_and_fails_unless_they_are_allowed(
    sqlite_uri: str, tmp_path: Path
) -> None:
    call = rich_call()
    store(sqlite_uri, [call])
    head = verify(sqlite_uri).head
    with sink_of(sqlite_uri) as sink:
        sink.correct(numbered(id=call.id, response="Better."))
    made = load({}, tracking_uri=sqlite_uri, home=str(tmp_path / "home"))
    make_key(key_path(made))
    file = tmp_path / "events.jsonl"
    export(made, NOW_MS - 1000, NOW_MS + 1000, file)
    assert [True, False, True] == [
        verify_file(file).intact,
        verify_file(file, head=head).intact,
        verify_file(file, head=head, allow=["correction"]).intact,
    ]
    assert ["correction"] == [one.kind for one in verify_file(file, head=head).events]


@pytest.mark.parametrize("kind", ["Batch", "beginning"])
def test_a_bundle_refuses_an_entry_of_a_kind_that_nobody_knows(
    sqlite_uri: str, tmp_path: Path, kind: str
) -> None:
    store(sqlite_uri, [rich_call()])
    forge(sqlite_uri, kind, Leaves())
    made = load({}, tracking_uri=sqlite_uri, home=str(tmp_path / "home"))
    make_key(key_path(made))
    file = tmp_path / "unknown.jsonl"
    export(made, NOW_MS - 1000, NOW_MS + 1000, file)
    assert ["entry 3 is of an unknown kind"] == verify_file(file).problems
