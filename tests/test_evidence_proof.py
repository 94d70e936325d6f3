"""The chain of evidence: whatever is changed behind our back is found and named."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, groupby
from operator import itemgetter
from typing import Any

import pytest
import sqlalchemy as sa

from flowledger.audit.comparing import Difference
from flowledger.audit.proof import Proof, open_proven, verify
from flowledger.audit.texts import texts_between
from flowledger.config import Destination
from flowledger.records import (
    Call,
    Gap,
    Job,
    Logged,
    Metric,
    Outcome,
    Place,
    Producer,
    Prompt,
    Span,
    encode,
    new_id,
)
from flowledger.store import open_sink
from flowledger.store.bulk import BulkSink
from flowledger.store.chain import rows_of
from flowledger.store.leaves import KEPT, OF_A_CALL, digest_of_record, text_digest
from flowledger.store.rollup import rebuild
from flowledger.store.schema import migrate, migrate_back
from tests.calls import NOW_NS, a_call

PRODUCER = "1" * 32
numbers = count(1)


@contextmanager
def sink_of(uri: str) -> Iterator[BulkSink]:
    sink = open_sink(
        Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as="run+trace")
    )
    assert isinstance(sink, BulkSink)
    try:
        yield sink
    finally:
        sink.close()


def numbered(**fields: Any) -> Call:
    return a_call(**{"producer": PRODUCER, "seq": next(numbers), **fields})


def store(uri: str, records: Sequence[Any]) -> None:
    with sink_of(uri) as sink:
        assert [] == sink.write([encode(record) for record in records])


def execute(uri: str, statement: str, **values: Any) -> int:
    engine = sa.create_engine(uri)
    with engine.begin() as connection:
        done = connection.execute(sa.text(statement), values).rowcount
    engine.dispose()
    return done


def named(proof: Proof) -> set[tuple[str, str, str]]:
    """What differs beside the sums, which follow calls that are changed."""
    sums = ("llm_rollup", "llm_latencies", "llm_facets")
    return {(o.what, o.table, o.id) for o in proof.differences if o.table not in sums}


def rich_call() -> Call:
    """A call that has a row in every table."""
    return numbered(
        params={"top": 3},
        tags={"team": "blue"},
        metrics={"score": 0.1 + 0.2, "tiny": 1.23456789e-7, "huge": 1e20},
        prompt_version=Prompt(name="greeting", version="3"),
        cost_usd=0.1 + 0.2,
    )


CHANGES = {
    "runs": ("UPDATE runs SET name = 'x' WHERE run_uuid = :id", ""),
    "params": ("UPDATE params SET value = 'x' WHERE run_uuid = :id AND key = 'model'", ""),
    "metrics": ("UPDATE metrics SET value = 1.5 WHERE run_uuid = :id AND key = 'score'", ""),
    "latest_metrics": ("UPDATE latest_metrics SET value = 9 WHERE run_uuid = :id AND step = 0", ""),
    "tags": ("UPDATE tags SET value = 'x' WHERE run_uuid = :id AND key = 'user_id'", ""),
    "trace_info": ("UPDATE trace_info SET request_preview = 'x' WHERE request_id = :id", "tr-"),
    "trace_tags": ("UPDATE trace_tags SET value = 'x' WHERE request_id = :id", "tr-"),
    "trace_request_metadata": (
        "UPDATE trace_request_metadata SET value = 'x' WHERE request_id = :id",
        "tr-",
    ),
    "spans": (
        "UPDATE spans SET content = replace(content, 'order', 'x') WHERE trace_id = :id",
        "tr-",
    ),
    "entity_associations": (
        "UPDATE entity_associations SET destination_id = 'greeting/4' WHERE source_id = :id",
        "tr-",
    ),
    "llm_calls": ("UPDATE llm_calls SET cost_usd = cost_usd * 1.000001 WHERE id = :id", ""),
    "llm_tags": ("UPDATE llm_tags SET value = 'red' WHERE call_id = :id", ""),
}
OWNERS = {"runs": "run_uuid", "llm_calls": "id", "llm_tags": "call_id", "spans": "trace_id"}


def test_a_row_that_is_changed_in_any_table_is_found_and_named(database_uri: str) -> None:
    calls = [rich_call() for _ in range(2 * len(CHANGES) + 1)]
    store(database_uri, calls)
    whole = verify(database_uri)
    assert (True, [], len(calls)) == (whole.intact, whole.differences, whole.calls)

    expected = set()
    for call, (table, (statement, prefix)) in zip(calls, CHANGES.items(), strict=False):
        assert execute(database_uri, statement, id=prefix + call.id)
        expected.add(("changed", table, call.id))

    assert expected == named(verify(database_uri))


def test_a_row_that_is_removed_from_any_table_is_found_and_named(database_uri: str) -> None:
    calls = [rich_call() for _ in CHANGES]
    store(database_uri, calls)
    expected = set()
    for call, (table, (statement, prefix)) in zip(calls, CHANGES.items(), strict=True):
        if table in ("runs", "trace_info"):
            continue  # others refer to these
        where = statement.partition("WHERE")[2]
        assert execute(database_uri, f"DELETE FROM {table} WHERE {where}", id=prefix + call.id)
        expected.add(("removed", table, call.id))

    assert expected == named(verify(database_uri))


def test_a_call_that_is_put_there_by_hand_is_found_and_named(database_uri: str) -> None:
    call = rich_call()
    store(database_uri, [call])
    forged = new_id()
    engine = sa.create_engine(database_uri)
    with engine.begin() as connection:
        table = sa.Table("llm_calls", sa.MetaData(), autoload_with=connection)
        row = dict(connection.execute(sa.select(table)).mappings().one())
        connection.execute(table.insert().values({**row, "id": forged}))
    engine.dispose()

    assert {("added", "llm_calls", forged)} == named(verify(database_uri))


def test_what_people_add_in_mlflow_is_no_tampering(database_uri: str) -> None:
    call = rich_call()
    store(database_uri, [call])
    row = "VALUES ('mlflow.note.content', 'looks good', :id)"
    execute(database_uri, f"INSERT INTO tags (key, value, run_uuid) {row}", id=call.id)
    execute(
        database_uri, f"INSERT INTO trace_tags (key, value, request_id) {row}", id=f"tr-{call.id}"
    )

    proof = verify(database_uri)

    assert (True, {"tags": 1, "trace_tags": 1}) == (proof.intact, proof.added_by_others)


def test_a_correction_and_a_removal_stand_in_the_chain(database_uri: str) -> None:
    kept, corrected, gone = rich_call(), rich_call(), rich_call()
    store(database_uri, [kept, corrected, gone])
    with sink_of(database_uri) as sink:
        sink.correct(numbered(id=corrected.id, response="Better."))
        sink.remove([gone.id])

    proof = verify(database_uri)

    assert (True, 2) == (proof.intact, proof.calls)
    assert ["correction", "removal"] == [event.kind for event in proof.events]


def test_records_delivered_twice_leave_the_chain_as_it_was(database_uri: str) -> None:
    call, job = rich_call(), Job(id=new_id(), producer=PRODUCER, seq=next(numbers), start_ns=NOW_NS)
    gap = Gap(id=new_id(), producer=PRODUCER, first_seq=70, last_seq=75, count=6, reason="full")
    records = [Producer(id=PRODUCER, producer=PRODUCER, host="here"), call, job, gap]
    store(database_uri, records)
    head = verify(database_uri).head

    store(database_uri, records)

    assert head == verify(database_uri, head=head).head


def test_a_job_is_proven_through_all_its_writings(database_uri: str) -> None:
    job = Job(
        id=new_id(),
        producer=PRODUCER,
        seq=next(numbers),
        start_ns=NOW_NS,
        running=True,
        name="nightly",
    )
    place = Place(root_id=job.id, parent_id=job.id, experiment="Default")
    store(database_uri, [job, numbered(place=place, parent_id=job.id)])
    logged = Logged(
        id=new_id(),
        producer=PRODUCER,
        seq=next(numbers),
        run_id=job.id,
        metrics=[Metric(key="done", value=0.5, timestamp_ms=1, step=s) for s in range(3)],
        tags={"phase": "two"},
    )
    span = Span(id=new_id(), producer=PRODUCER, seq=next(numbers), place=place, inputs="secret")
    ended = Job(
        id=job.id,
        producer=PRODUCER,
        seq=next(numbers),
        start_ns=NOW_NS,
        name="nightly",
        outcome=Outcome(success=False, error_type="E", message="m"),
    )
    store(database_uri, [logged, span])
    store(database_uri, [ended])
    assert verify(database_uri).intact

    changed = {
        "metrics": "UPDATE metrics SET value = 0.6 WHERE run_uuid = :id AND step = 1",
        "tags": "UPDATE tags SET value = 'three' WHERE run_uuid = :id AND key = 'phase'",
        "runs": "UPDATE runs SET status = 'FINISHED' WHERE run_uuid = :id",
    }
    for statement in changed.values():
        assert 1 == execute(database_uri, statement, id=job.id)
    execute(database_uri, "UPDATE spans SET content = '{}' WHERE name = 'span'")
    execute(database_uri, "DELETE FROM llm_records WHERE kind = 'span'")

    # A value is part of what tells the values of a metric apart.
    expected = {("changed", table, job.id) for table in ("tags", "runs", "spans")}
    expected |= {("removed", "metrics", job.id), ("removed", "llm_records", PRODUCER)}
    assert expected == named(verify(database_uri))


def test_the_chain_itself_cannot_be_mended_by_hand(sqlite_uri: str) -> None:
    for _ in range(3):
        store(sqlite_uri, [rich_call()])
    head = verify(sqlite_uri).head
    execute(sqlite_uri, "UPDATE llm_chain SET note = 'x' WHERE number = 2")
    execute(sqlite_uri, "DELETE FROM llm_chain WHERE number = 3")
    found = {one for one in named(verify(sqlite_uri)) if one[1] == "llm_chain"}
    assert {("changed", "llm_chain", "2"), ("removed", "llm_chain", "3")} == found

    assert head == verify(sqlite_uri, head=head).head


def test_an_end_that_was_cut_off_is_found_by_the_head_told_before(sqlite_uri: str) -> None:
    first, last = rich_call(), rich_call()
    store(sqlite_uri, [first])
    before = verify(sqlite_uri).head
    store(sqlite_uri, [last])
    head = verify(sqlite_uri).head
    execute(sqlite_uri, "DELETE FROM llm_chain WHERE number = (SELECT max(number) FROM llm_chain)")
    for table in ("runs", "params", "metrics", "latest_metrics", "tags"):
        execute(sqlite_uri, f"DELETE FROM {table} WHERE run_uuid = :id", id=last.id)
    for table, column in (("trace_info", "request_id"), ("spans", "trace_id")):
        execute(sqlite_uri, f"DELETE FROM {table} WHERE {column} = :id", id=f"tr-{last.id}")
    execute(sqlite_uri, "DELETE FROM llm_calls WHERE id = :id", id=last.id)
    engine = sa.create_engine(sqlite_uri)
    with engine.begin() as connection:
        rebuild(connection.exec_driver_sql, 0, 10**6)
    engine.dispose()

    assert (True, True) == (verify(sqlite_uri).intact, verify(sqlite_uri, head=before).intact)
    assert (False, False) == (
        verify(sqlite_uri, head=head).intact,
        verify(sqlite_uri, head=head).anchored,
    )


def test_a_text_with_separators_cannot_be_cut_in_another_way(sqlite_uri: str) -> None:
    call = numbered(params={"a": "1\x1fb\x1f2", "c": "3\x1e"})
    store(sqlite_uri, [call])
    assert verify(sqlite_uri).intact
    execute(sqlite_uri, "UPDATE params SET value = '1' WHERE key = 'a'")
    execute(
        sqlite_uri, "INSERT INTO params (key, value, run_uuid) VALUES ('b', '2', :i)", i=call.id
    )
    assert {("changed", "params", call.id)} == named(verify(sqlite_uri))


@pytest.mark.parametrize("value", ["12.5 or so", "no number"])
def test_a_number_that_is_replaced_by_a_text_is_found(sqlite_uri: str, value: str) -> None:
    call = numbered(metrics={"score": 12.5, "none": 0.0}, cost_usd=0.0)
    store(sqlite_uri, [call])
    statement = "UPDATE {} SET {} = :value WHERE {} = :id"
    for table, column, owner in (
        ("metrics", "value", "run_uuid"),
        ("latest_metrics", "value", "run_uuid"),
        ("trace_info", "total_cost", "request_id"),
        ("llm_calls", "cost_usd", "id"),
    ):
        record_id = "tr-" * (table == "trace_info") + call.id
        only = " AND key IN ('score', 'none')" if table.endswith("metrics") else ""
        changed = statement.format(table, column, owner) + only
        execute(sqlite_uri, changed, value=value, id=record_id)
        assert ("changed", table, call.id) in named(verify(sqlite_uri))


def test_what_stands_behind_a_nul_is_found(sqlite_uri: str) -> None:
    call = numbered(metrics={"score": 12.5})
    store(sqlite_uri, [call])
    for table, column, owner in (
        ("runs", "name", "run_uuid"),
        ("metrics", "timestamp", "run_uuid"),
        ("tags", "value", "run_uuid"),
        ("trace_info", "request_preview", "request_id"),
        ("spans", "content", "trace_id"),
        ("llm_calls", "user_id", "id"),
    ):
        record_id = "tr-" * (owner in ("request_id", "trace_id")) + call.id
        changed = f"UPDATE {table} SET {column} = {column} || char(0) || 'x' WHERE {owner} = :id"
        assert execute(sqlite_uri, changed, id=record_id)
        assert ("changed", table, call.id) in named(verify(sqlite_uri)), table


def test_a_database_makes_the_text_that_the_digests_are_of(database_uri: str) -> None:
    calls = {call.id: call for call in (rich_call() for _ in range(3))}
    store(database_uri, list(calls.values()))
    first, last = min(calls), max(calls)
    with open_proven(database_uri) as (writer, cursor):
        for table in OF_A_CALL:
            rows = rows_of(writer, cursor, table, [KEPT[table].prefix + one for one in calls])
            owner = itemgetter(KEPT[table].columns.index(KEPT[table].owner))
            expected = {
                record_id.removeprefix(KEPT[table].prefix): digest_of_record(table, list(some))[1]
                for record_id, some in groupby(sorted(rows, key=owner), owner)
            }
            made = texts_between(writer, cursor, table, first, last)
            assert expected == {one: text_digest(text) for one, text in made}, table


def test_several_processes_find_what_one_does(sqlite_uri: str) -> None:
    calls = [rich_call() for _ in range(50)]
    for start in range(0, 50, 10):
        store(sqlite_uri, calls[start : start + 10])
    execute(sqlite_uri, CHANGES["llm_tags"][0], id=calls[17].id)
    one, two = verify(sqlite_uri, processes=1), verify(sqlite_uri, processes=2)
    assert [Difference("changed", "llm_tags", calls[17].id)] == one.differences == two.differences


def begin_anew(uri: str) -> None:
    """Go back to before there was a log and forward again, as `flowledger migrate` does."""
    engine = sa.create_engine(uri)
    migrate_back(engine, 5)
    migrate(engine)
    engine.dispose()


@pytest.mark.parametrize("calls", [1, 3])
def test_a_log_that_was_begun_anew_fails_unless_that_is_allowed(
    database_uri: str, calls: int
) -> None:
    store(database_uri, [rich_call() for _ in range(calls)])
    begin_anew(database_uri)
    store(database_uri, [rich_call()])
    assert {("begun anew", "llm_chain", "1")} == named(verify(database_uri))

    proof = verify(database_uri, allow=["beginning"])

    assert (True, calls, 1) == (proof.intact, proof.outside, proof.calls)


def test_calls_outside_of_the_log_are_as_many_as_when_it_began(database_uri: str) -> None:
    calls = [rich_call() for _ in range(3)]
    store(database_uri, calls)
    execute(database_uri, "CREATE TABLE aside AS SELECT * FROM llm_calls")
    begin_anew(database_uri)
    assert verify(database_uri, allow=["beginning"]).intact

    execute(database_uri, "DELETE FROM llm_calls WHERE id = :id", id=calls[0].id)
    removed = {("removed", "llm_calls", "1 from before the log began")}
    assert removed == named(verify(database_uri, allow=["beginning"]))
    execute(database_uri, "UPDATE aside SET id = :id WHERE id = :of", id="0" * 32, of=calls[1].id)
    execute(database_uri, "UPDATE aside SET seq = seq + 1000")
    rows = "SELECT * FROM aside WHERE id IN (:one, :other)"
    insert = f"INSERT INTO llm_calls {rows}"
    assert 2 == execute(database_uri, insert, one=calls[0].id, other="0" * 32)
    added = {("added", "llm_calls", "1 more than when the log began")}
    assert added == named(verify(database_uri, allow=["beginning"]))


def test_a_log_that_was_begun_with_jobs_alone_fails_too(sqlite_uri: str) -> None:
    job = Job(id=new_id(), producer=PRODUCER, seq=next(numbers), start_ns=NOW_NS)
    store(sqlite_uri, [job])
    begin_anew(sqlite_uri)
    assert {("begun anew", "llm_chain", "1")} == named(verify(sqlite_uri))
    assert verify(sqlite_uri, allow=["beginning"]).intact


UNLINKED = {
    "llm_records": "(producer_id, seq, id, kind, received_ms) VALUES (:p, 900, :p, 'logged', 1)",
    "llm_gaps": "(producer_id, first_seq, last_seq, dropped, reason, seen_ms)"
    " VALUES (:p, 900, 999, 100, 'full', 1)",
    "llm_producers": "(id, host, pid, os_user, source, version, start_ms)"
    " VALUES (:p, 'h', 1, 'u', 's', 'v', 1)",
    "llm_rejected": "(producer_id, seq, reason, seen_ms) VALUES (:p, 900, 'why', 1)",
}


@pytest.mark.parametrize("table", list(UNLINKED))
@pytest.mark.parametrize("producer", [PRODUCER, "9" * 32])
def test_a_row_of_a_process_that_no_entry_has_is_found(
    database_uri: str, table: str, producer: str
) -> None:
    job = Job(id=new_id(), producer=PRODUCER, seq=next(numbers), start_ns=NOW_NS)
    store(database_uri, [job, rich_call()])
    execute(database_uri, f"INSERT INTO {table} {UNLINKED[table]}", p=producer)
    assert {("added", table, producer)} == named(verify(database_uri))


def test_rejected_records_are_in_the_log(database_uri: str) -> None:
    with sink_of(database_uri) as sink:
        for _ in range(2):
            refused = numbered(seq=7_000, id="no id")
            assert 1 == len(sink.write([encode(refused), encode(rich_call())]))
    proof = verify(database_uri)
    assert (True, 1) == (proof.intact, proof.rows)
    execute(database_uri, "UPDATE llm_rejected SET seq = 7001")
    found = {("removed", "llm_rejected", PRODUCER), ("added", "llm_rejected", PRODUCER)}
    assert found == named(verify(database_uri))


def test_a_number_that_a_call_and_another_record_have_is_found(database_uri: str) -> None:
    job = Job(id=new_id(), producer=PRODUCER, seq=next(numbers), start_ns=NOW_NS)
    store(database_uri, [job, rich_call(), numbered(seq=job.seq)])
    expected = {("numbered twice", "llm_calls", f"{PRODUCER} {job.seq}")}
    assert expected == named(verify(database_uri))
