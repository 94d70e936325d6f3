"""Traces that MLflow archived are proven, erased and shown where their spans are now."""

import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from flowledger.audit.erasure import erase, purge
from flowledger.audit.proof import verify
from flowledger.config import Destination
from flowledger.records import Actor, Call, Job, Outcome, Place, Record, encode, new_id
from flowledger.store import open_sink
from tests.calls import NOW_NS, a_call, any_call
from tests.test_erasure import DAY_NS, TEXT, USER, fill, scalar, told_everywhere, traces_in
from tests.test_evidence_proof import PRODUCER, numbers

LONG_AGO_NS = NOW_NS - 5 * DAY_NS


def archive(uri: str, folder: Path) -> int:
    """Archive every trace, as MLflow's own scheduler does; returns how many."""
    store = SqlAlchemyStore(uri, "/nonexistent/mlruns")
    archived = store.archive_traces(
        resolved_trace_archival_location=folder.as_uri(), broader_retention="1d"
    )
    store.engine.dispose()
    return archived


@pytest.fixture
def archived(database_uri: str, tmp_path: Path) -> Path:
    """A user's job, call and spans, archived; the folder with the archive."""
    fill(database_uri, tmp_path / "mlruns", told_everywhere(USER, TEXT, LONG_AGO_NS))
    assert 3 == archive(database_uri, tmp_path / "archive")
    assert 3 == len(traces_in(tmp_path / "archive", TEXT))
    return tmp_path / "archive"


def test_an_archived_trace_is_proven_by_what_is_in_the_archive(
    database_uri: str, archived: Path
) -> None:
    proof = verify(database_uri)
    assert (True, [], 0) == (proof.intact, proof.differences, proof.archived_not_proven)


def test_an_archived_trace_that_was_changed_in_the_archive_is_a_difference(
    database_uri: str, archived: Path
) -> None:
    for file in archived.rglob("traces.pb"):
        file.write_bytes(file.read_bytes().replace(TEXT.encode(), TEXT[::-1].encode()))
    found = {(one.what, one.table) for one in verify(database_uri).differences}
    assert {("changed", "spans")} == found


def test_an_archived_trace_that_cannot_be_read_is_counted_as_not_proven(
    database_uri: str, archived: Path
) -> None:
    archived.rename(archived.with_name("elsewhere"))
    proof = verify(database_uri)
    assert (True, [], 3) == (proof.intact, proof.differences, proof.archived_not_proven)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(call=any_call())
def test_any_call_at_all_is_proven_from_the_archive(
    empty_sqlite: Path, tmp_path: Path, call: Call
) -> None:
    path = tmp_path / f"{new_id()}.db"
    shutil.copy(empty_sqlite, path)
    uri = f"sqlite:///{path}"
    sink = open_sink(
        Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as="run+trace")
    )
    old = msgspec.structs.replace(call, id=new_id(), start_ns=LONG_AGO_NS)
    refused = sink.write([encode(old)])
    sink.close()
    assert 1 - len(refused) == archive(uri, tmp_path / "archive")
    proof = verify(uri)
    assert (True, [], 0) == (proof.intact, proof.differences, proof.archived_not_proven)


def test_erasing_a_user_takes_archived_texts_too_and_keeps_the_proof(
    database_uri: str, archived: Path
) -> None:
    done = erase(database_uri, USER, by="dpo", reason="art. 17", vacuum=False)
    assert (1, {}) == (done.calls, done.unreached)
    assert [] == traces_in(archived, TEXT, USER)
    assert 0 == scalar(database_uri, f"SELECT count(*) FROM llm_calls WHERE user_id = '{USER}'")
    proof = verify(database_uri)
    assert (True, [], 0) == (proof.intact, proof.differences, proof.archived_not_proven)


@pytest.mark.parametrize("everything", [False, True])
def test_a_purge_takes_archived_texts_too(
    database_uri: str, archived: Path, everything: bool
) -> None:
    tomorrow_ms = (NOW_NS + DAY_NS) // 10**6  # jobs are purged by when they were received
    done = purge(
        database_uri, tomorrow_ms, by="ops", reason="", everything=everything, vacuum=False
    )
    assert {} == done.unreached
    assert [] == traces_in(archived, TEXT)
    assert verify(database_uri).intact


def test_an_archive_that_is_not_there_is_named_and_the_rest_is_erased(
    database_uri: str, archived: Path
) -> None:
    archived.rename(archived.with_name("elsewhere"))
    done = erase(database_uri, USER, by="dpo", reason="art. 17", vacuum=False)
    assert [True, True] == [str(archived) in place for place in done.unreached]
    assert [
        "FileNotFoundError: there is no such folder on this host",
        "FileNotFoundError: no archived spans can be read there",
    ] == list(done.unreached.values())
    assert 0 == scalar(database_uri, f"SELECT count(*) FROM llm_calls WHERE user_id = '{USER}'")
    assert verify(database_uri).intact


def test_her_part_of_another_ones_archived_trace_is_erased_and_the_rest_stays(
    database_uri: str, tmp_path: Path
) -> None:
    job = Job(
        id=new_id(),
        start_ns=LONG_AGO_NS,
        name="nightly",
        experiment="support",
        outcome=Outcome(success=True),
    )
    place = Place(root_id=job.id, parent_id=job.id, experiment="support")
    records: list[Record] = [job]
    records += [
        a_call(
            start_ns=LONG_AGO_NS,
            actor=Actor(user_id=user),
            prompt=f"asked by {user}",
            parent_id=job.id,
            place=place,
        )
        for user in ("ana", "bob")
    ]
    numbered: list[Record] = [
        msgspec.structs.replace(one, producer=PRODUCER, seq=next(numbers)) for one in records
    ]
    fill(database_uri, tmp_path / "mlruns", numbered)
    assert 3 == archive(database_uri, tmp_path / "archive")
    done = erase(database_uri, "ana", by="dpo", reason="art. 17", vacuum=False)
    assert {} == done.unreached
    assert [] == traces_in(tmp_path / "archive", "asked by ana")
    assert 2 == len(traces_in(tmp_path / "archive", "asked by bob"))
    proof = verify(database_uri)
    assert (True, [], 0) == (proof.intact, proof.differences, proof.archived_not_proven)
