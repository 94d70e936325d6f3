"""Erasure and retention: no trace of a text anywhere, and the counts and the chain still whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from mlflow import MlflowClient

from flowledger.audit.erasure import count, erase, purge
from flowledger.audit.proof import verify
from flowledger.config import Destination
from flowledger.errors import NotFound
from flowledger.records import (
    Actor,
    Artifact,
    Job,
    Outcome,
    Place,
    Producer,
    Record,
    Span,
    ToolCall,
    encode,
    new_id,
)
from flowledger.store import open_sink
from tests.calls import NOW_NS, a_call
from tests.test_evidence_proof import PRODUCER, execute, numbers
from tests.test_rollup import assert_true_sums

TEXT = "zebra-quartz-7391"
USER = "ana.smith.4711"
DAY_NS = 86_400 * 10**9


def told_everywhere(user: str, text: str, start_ns: int = NOW_NS) -> list[Record]:
    """A job with a call and a span of a user, the text wherever one can be."""
    actor = Actor(user_id=user, session_id=f"session of {user}", audit_reason=f"asked by {user}")
    job = Job(
        id=new_id(),
        start_ns=start_ns,
        name="nightly",
        actor=actor,
        experiment="support",
        params={"q": text},
        tags={"t": text},
        outcome=Outcome(success=False, error_type="E", message=text, stack=text),
    )
    place = Place(root_id=job.id, parent_id=job.id, experiment="support")
    call = a_call(
        start_ns=start_ns,
        actor=actor,
        prompt=[{"role": "user", "content": f"tell me of {text}"}],
        response=f"here is {text}",
        tool_calls=[ToolCall(name="look", arguments=text, result=text)],
        outcome=Outcome(success=False, error_type="E", message=text, stack=text),
        params={"p": text},
        tags={"t": text, "detected_intent": text, "current_module": f"at {text}"},
        metrics={text: 1.0},
        settings={"stop": text},
        parent_id=job.id,
        place=place,
    )
    span = Span(id=new_id(), start_ns=start_ns, place=place, inputs=text, outputs={"o": text})
    alone = Span(
        id=new_id(), start_ns=start_ns, actor=actor, experiment="support", inputs=text, name="lone"
    )
    file = Artifact(id=new_id(), run_id=job.id, path="notes.txt", content=text.encode())
    return [
        msgspec.structs.replace(one, producer=PRODUCER, seq=next(numbers))
        for one in (job, call, span, alone, file)
    ]


def fill(uri: str, root: Path | str, records: list[Record]) -> None:
    sink = open_sink(Destination(tracking_uri=uri, artifact_root=str(root), store_as="run+trace"))
    producer = Producer(id=PRODUCER, producer=PRODUCER, host="here")
    assert [] == sink.write([encode(one) for one in (producer, *records)])
    sink.close()


def traces_in(folder: Path, *texts: str) -> list[str]:
    """Files that hold one of these texts, byte for byte."""
    wanted = [text.encode() for text in texts]
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(text in path.read_bytes() for text in wanted)
    ]


def scalar(uri: str, query: str) -> Any:
    engine = sa.create_engine(uri)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(query).scalar()
    engine.dispose()
    return found


def note_by_hand(uri: str) -> None:
    """What people added in MLflow: a note, an assessment, an input."""
    for table, column, prefix in (("tags", "run_uuid", ""), ("trace_tags", "request_id", "tr-")):
        execute(
            uri,
            f"INSERT INTO {table} (key, value, {column}) SELECT 'mlflow.note.content', :text,"
            f" '{prefix}' || id FROM llm_calls WHERE user_id = :user",
            text=TEXT,
            user=USER,
        )
    client = MlflowClient(uri)
    from mlflow.entities import AssessmentSource, Feedback

    call = scalar(uri, f"SELECT id FROM llm_calls WHERE user_id = '{USER}'")
    client._tracing_client.store.create_assessment(
        Feedback(
            trace_id=f"tr-{call}",
            name="verdict",
            value=TEXT,
            rationale=TEXT,
            source=AssessmentSource(source_type="HUMAN", source_id="boss"),
        )
    )


@pytest.fixture
def data_folder(database_uri: str, tmp_path: Path) -> Path:
    if database_uri.startswith("sqlite"):
        return tmp_path
    return Path(scalar(database_uri, "SHOW data_directory"))


def test_an_erased_user_leaves_no_trace_in_the_bytes_of_the_database_or_of_artifacts(
    database_uri: str, tmp_path: Path, data_folder: Path
) -> None:
    root = tmp_path / "artifacts"
    fill(database_uri, root, told_everywhere(USER, TEXT))
    fill(database_uri, root, told_everywhere("bob", "another text"))
    note_by_hand(database_uri)
    assert [] != traces_in(data_folder, TEXT)
    assert [] != traces_in(root, TEXT)

    done = erase(database_uri, USER, by="dpo", reason="request 12")

    assert (1, 2, {}) == (done.calls, done.jobs, done.unreached)
    if database_uri.startswith("postgresql"):
        forget_the_log(database_uri)
    assert [] == traces_in(data_folder, TEXT, USER)
    assert [] == traces_in(root, TEXT)
    assert 2 == scalar(database_uri, "SELECT count(*) FROM llm_calls")
    assert 1 == scalar(database_uri, "SELECT count(*) FROM llm_calls WHERE user_id = 'bob'")
    proof = verify(database_uri)
    assert (True, []) == (proof.intact, proof.differences)
    assert {("erasure", '"dpo"' in event.note) for event in proof.events} == {("erasure", True)}
    assert "another text" in scalar(
        database_uri, "SELECT value FROM params WHERE key = 'response' LIMIT 1"
    )
    assert_true_sums(database_uri)


def forget_the_log(uri: str) -> None:
    """As `docs/audit.md` tells whoever keeps the server: the log is not ours to cut."""
    engine = sa.create_engine(uri, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET wal_recycle = off")
        connection.exec_driver_sql("ALTER SYSTEM SET min_wal_size = '32MB'")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
        for _ in range(2):
            connection.exec_driver_sql("SELECT pg_switch_wal()")
            connection.exec_driver_sql("CHECKPOINT")
    engine.dispose()


def test_a_purge_takes_content_and_leaves_what_is_counted(
    database_uri: str, tmp_path: Path
) -> None:
    root = tmp_path / "artifacts"
    old = told_everywhere(USER, TEXT, NOW_NS - 200 * DAY_NS)
    fill(database_uri, root, old)
    fill(database_uri, root, told_everywhere(USER, "a new text"))
    execute(database_uri, "UPDATE llm_records SET received_ms = 1 WHERE seq < :s", s=old[-1].seq)
    before_ms = (NOW_NS - 180 * DAY_NS) // 10**6
    cost = scalar(database_uri, "SELECT sum(cost_usd) FROM llm_calls")
    assert (1, 2) == tuple(vars_of(count(database_uri, before_ms=before_ms)))

    done = purge(database_uri, before_ms, by="cron", reason="retention", vacuum=False)

    assert 1 == done.calls
    assert cost == scalar(database_uri, "SELECT sum(cost_usd) FROM llm_calls")
    assert 2 == scalar(database_uri, f"SELECT count(*) FROM llm_calls WHERE user_id = '{USER}'")
    for table, column in (("params", "value"), ("spans", "content"), ("llm_calls", "details")):
        held = f"SELECT count(*) FROM {table} WHERE {column} LIKE '%%of {TEXT}%%'"
        assert 0 == scalar(database_uri, held), table
    assert 1 == scalar(
        database_uri, "SELECT count(*) FROM params WHERE value LIKE '%%a new text%%' AND key = 'p'"
    )
    assert verify(database_uri).intact
    assert 0 == purge(database_uri, before_ms, by="cron", reason="again", vacuum=False).calls
    assert_true_sums(database_uri)


def vars_of(counted: Any) -> list[int]:
    return [counted.calls, counted.jobs]


def test_everything_old_can_go_with_its_counts(database_uri: str, tmp_path: Path) -> None:
    job = Job(id=new_id(), producer=PRODUCER, seq=next(numbers), start_ns=NOW_NS, name="nightly")
    place = Place(root_id=job.id, parent_id=job.id, experiment="Default")
    old = a_call(
        start_ns=NOW_NS - 200 * DAY_NS,
        producer=PRODUCER,
        seq=next(numbers),
        parent_id=job.id,
        place=place,
    )
    new = a_call(producer=PRODUCER, seq=next(numbers))
    fill(database_uri, tmp_path, [job, old, new])

    purge(
        database_uri, NOW_NS // 10**6 - 1000, by="cron", reason="r", everything=True, vacuum=False
    )

    assert new.id == scalar(database_uri, "SELECT id FROM llm_calls")
    assert 2 == scalar(database_uri, "SELECT count(*) FROM runs")
    proof = verify(database_uri)
    assert (True, 1, ["purge"]) == (proof.intact, proof.calls, [e.kind for e in proof.events])
    assert_true_sums(database_uri)


KILLED = """
import os, signal, sys
from flowledger.audit import erasure
erasure.AT_ONCE = 5
def progress(done):
    if done >= 15:
        os.kill(os.getpid(), signal.SIGKILL)
erasure.erase(sys.argv[1], sys.argv[2], by="dpo", reason="r", progress=progress)
"""


def test_an_erasure_that_is_killed_goes_on_under_the_same_name(
    sqlite_uri: str, tmp_path: Path
) -> None:
    actor = Actor(user_id=USER, session_id="s")
    calls: list[Record] = [
        a_call(actor=actor, prompt=TEXT, producer=PRODUCER, seq=next(numbers)) for _ in range(40)
    ]
    fill(sqlite_uri, tmp_path / "artifacts", calls)

    killed = subprocess.run([sys.executable, "-c", KILLED, sqlite_uri, USER], env=os.environ)
    assert -signal.SIGKILL == killed.returncode
    left = count(sqlite_uri, user_id=USER).calls
    assert 0 < left < 40
    assert verify(sqlite_uri).intact
    erase(sqlite_uri, USER, by="dpo", reason="r")

    names = "SELECT count(DISTINCT user_id) FROM llm_calls"
    assert (1, 0) == (scalar(sqlite_uri, names), count(sqlite_uri, user_id=USER).calls)
    assert 40 == scalar(sqlite_uri, "SELECT sum(calls) FROM llm_erasures WHERE ended_ms > 0")
    assert verify(sqlite_uri).intact
    assert [] == traces_in(tmp_path, TEXT, USER)
    assert_true_sums(sqlite_uri)


def test_what_is_said_of_an_erasure_names_nobody(database_uri: str, tmp_path: Path) -> None:
    fill(database_uri, tmp_path, [a_call(actor=Actor(user_id=USER), producer=PRODUCER, seq=1)])
    erase(database_uri, USER, by="dpo", reason="request 12", vacuum=False)
    row = "SELECT kind || done_by || reason || subject || salt FROM llm_erasures"
    assert "erasedporequest 12" == scalar(database_uri, row)


@pytest.mark.parametrize("work", ["erase", "purge"])
def test_where_there_is_no_ledger_nothing_is_erased_and_no_table_is_made(
    database_uri: str, work: str
) -> None:
    before = tables_of(database_uri)
    with pytest.raises(NotFound, match="no evidence is kept in this database yet"):
        take_out(work, database_uri)
    assert before == tables_of(database_uri)


@pytest.mark.parametrize("work", ["erase", "purge"])
def test_where_there_is_no_database_nothing_is_erased_and_none_is_made(
    tmp_path: Path, work: str
) -> None:
    with pytest.raises(NotFound, match="there is no database"):
        take_out(work, f"sqlite:///{tmp_path / 'none.db'}")
    assert [] == list(tmp_path.iterdir())


def take_out(work: str, uri: str) -> None:
    if work == "erase":
        erase(uri, USER, by="dpo", reason="art. 17")
    else:
        purge(uri, NOW_NS // 10**6, by="dpo", reason="retention")


def tables_of(uri: str) -> list[str]:
    engine = sa.create_engine(uri)
    found = sorted(sa.inspect(engine).get_table_names())
    engine.dispose()
    return found
