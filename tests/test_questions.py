"""Questions: named SQL that answers the same on SQLite and PostgreSQL, over all that is stored."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from flowledger.config import Destination
from flowledger.errors import NotFound, StoreMisconfigured, StoreUnavailable
from flowledger.questions import (
    Block,
    Experiment,
    FeatureOf,
    Ledger,
    LedgerSize,
    Losses,
    catalog,
)
from flowledger.questions.around import SpanOf
from flowledger.questions.catalog import parse
from flowledger.questions.engine import open_engine
from flowledger.questions.rows import CallRow, Chain, ChainChange
from flowledger.records import (
    Actor,
    Call,
    Gap,
    Job,
    Kind,
    Outcome,
    Place,
    Producer,
    ToolCall,
    Usage,
    encode,
    new_id,
)
from flowledger.store import open_sink
from tests.calls import NOW_NS, a_call

PROCESS = "0" * 32
ANSWERS: dict[str, type[msgspec.Struct] | tuple[str, ...]] = {
    "call_by_id": CallRow,
    "ledger_size": LedgerSize,
    "dropped_records": Losses,
    "ids_between": ("id",),
    "calls_of_process": ("calls",),
    "experiment_name": ("name",),
    "span_content": ("content",),
    "mlflow_revision": ("revision",),
    "first_call": ("start_ms",),
    "chain_state": Chain,
    "chain_changes": ChainChange,
    "run_of_call": ("run_uuid",),
    "run_tag": ("value",),
    "experiments": Experiment,
    "features_of_experiments": FeatureOf,
    "call_around": ("id", "parent_id", "name", "success"),
    "run_around": ("id", "parent_id", "name", "success"),
    "spans_around": SpanOf,
}
VALUES = {
    "limit": 5,
    "first": "0",
    "beyond": "g",
    "id": "0" * 32,
    "producer_id": PROCESS,
    "experiment_id": 1,
    "trace_id": "tr-0",
    "span_id": "0",
    "run_id": "0" * 32,
    "key": "user_id",
}


def store(uri: str, *records: Call | Gap | Job, store_as: str = "run+trace") -> None:
    """Put records where the collector would."""
    root = "/nonexistent/mlruns"
    sink = open_sink(Destination(tracking_uri=uri, artifact_root=root, store_as=store_as))
    producer = Producer(id=PROCESS, producer=PROCESS, host="h", pid=7, source="app.py")
    assert sink.write([encode(producer), *map(encode, records)]) == []
    sink.close()


def free(**fields: Any) -> Call:
    """A call of a model with no price, of which nothing is known but these fields."""
    return a_call(
        **{"usage": Usage(), "model": None, "model_asked": None, "kind": "image"} | fields
    )


def columns_of(answer: type[msgspec.Struct] | tuple[str, ...]) -> set[str]:
    return set(answer if isinstance(answer, tuple) else answer.__struct_fields__)


def test_every_question_runs_and_answers_the_columns_of_its_row(database_uri: str) -> None:
    store(database_uri, a_call())
    engine = open_engine(database_uri, 30)
    answered = {}
    for block in catalog().values():
        if block.holes:
            continue  # asked in test_windows.py
        values = {name: VALUES[name] for name in block.parameters}
        with engine.connect() as connection:
            answered[block.name] = set(connection.execute(sa.text(block.sql), values).keys())
    engine.dispose()
    assert {name: columns_of(answer) for name, answer in ANSWERS.items()} == answered


def test_no_question_uses_words_of_one_dialect() -> None:
    words = ("::", " FILTER", "ILIKE", "PERCENTILE", "STRFTIME", "TO_TIMESTAMP", "SELECT *", "GLOB")
    found = {(b.name, word) for b in catalog().values() for word in words if word in b.sql.upper()}
    assert set() == found


def test_every_question_says_in_a_sentence_what_it_asks() -> None:
    assert [] == [block.name for block in catalog().values() if block.description[-1] != "."]


def test_a_file_is_taken_apart_into_named_and_described_blocks() -> None:
    one = "-- name: one\n-- First.\n-- Line.\nSELECT :a,\n  2;\n\n"
    source = f"-- About the file.\n\n{one}-- name: two\n-- S.\nSELECT 1"
    expected = [
        Block(name="one", description="First. Line.", sql="SELECT :a,\n  2"),
        Block(name="two", description="S.", sql="SELECT 1"),
    ]
    assert expected == parse(source)


def test_a_block_knows_the_names_of_its_values() -> None:
    assert {"first", "beyond", "limit"} == catalog()["ids_between"].parameters


@pytest.mark.parametrize(
    "source",
    [
        "-- name: Big\n-- Says.\nSELECT 1",
        "-- name:\n-- S.\nSELECT 1",
        "-- name: a\nSELECT 1",
        "-- name: a\n-- S.",
    ],
    ids=["capital", "no name", "no sentence", "no SQL"],
)
def test_a_block_without_its_parts_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="-- name"):
        parse(source)


def test_an_unknown_price_is_counted_and_never_zero(database_uri: str) -> None:
    model = {"model": "house-7b", "model_asked": "house-7b", "provider": "house", "kind": Kind.CHAT}
    store(
        database_uri,
        free(feature="house", usage=Usage(input_tokens=1, output_tokens=1), **model),
        free(feature="house", usage=Usage(images=1), kind=Kind.IMAGE),
        free(feature="house", outcome=Outcome(success=False), **model),
        free(feature="house"),
    )
    with Ledger(database_uri) as ledger:
        [row] = ledger.over().by("feature")
    assert (4, None, 2) == (row.calls, row.known_cost_usd, row.unpriced)


def test_sums_say_how_much_of_the_cost_rests_on_estimated_tokens(database_uri: str) -> None:
    name = "claude-sonnet-4-20250514"
    claude = {"model": name, "model_asked": name, "provider": "anthropic"}
    store(
        database_uri,
        a_call(**claude, feature="a", usage=Usage()),  # its tokenizer is not public
        a_call(**claude, feature="a", usage=Usage(), cost_usd=0.5),
        a_call(**claude, feature="b"),
        a_call(feature="b", usage=Usage()),  # counted with the tokenizer of the model
        a_call(model="house-7b", model_asked=None, provider="house", usage=Usage()),
    )
    with Ledger(database_uri) as ledger:
        sources = ("estimated", "listed")
        calls = list(ledger.over().every(content=False))
        costs = [c.cost_usd for c in calls if (c.usage_source, c.cost_source) == sources]
        sums, by = ledger.over().sums(), ledger.over().by("feature")
    assert [sums.estimated_cost_usd] == costs
    assert 1 == sums.estimated
    assert {"a": 1, "b": 0, "support": 0} == {row.value: row.estimated for row in by}


def test_only_calls_that_asked_a_model_are_counted(database_uri: str) -> None:
    failed = {"outcome": Outcome(success=False, error_type="TimeoutError")}
    store(
        database_uri,
        a_call(operation="chat", duration_ns=400_000_000),
        free(operation="unnamed", kind=Kind.CHAT, duration_ns=200_000_000),
        free(model="house-7b", operation="custom", kind=Kind.CUSTOM, duration_ns=300_000_000),
        free(operation="tool", kind=Kind.CUSTOM, parent_id="a" * 32, duration_ns=1_000_000),
        free(operation="broken tool", kind=Kind.CUSTOM, parent_id="a" * 32, **failed),
        free(operation="by hand", kind=Kind.CUSTOM, duration_ns=300_000_000),
        free(operation="search", kind=Kind.RETRIEVAL, duration_ns=1_000_000),
    )
    with Ledger(database_uri) as ledger:
        over = ledger.over()
        sums = over.sums()
        assert (4, 0, 300.0) == (sums.calls, sums.failed, sums.mean_latency_ms)
        assert ["by hand", "chat", "custom", "unnamed"] == sorted(
            str(row.value) for row in over.by("operation")
        )
        assert [] == over.failed(10)
        assert 7 == len(over.calls().rows)


def test_a_call_around_other_calls_is_not_counted_besides_them(database_uri: str) -> None:
    outer = free(feature="a", cost_usd=9.0, inner_calls=2)
    inner = [free(feature="a", parent_id=outer.id, cost_usd=1.0) for _ in range(2)]
    alone = free(feature="a", cost_usd=1.0)
    store(database_uri, outer, *inner, alone)
    with Ledger(database_uri) as ledger:
        [row] = ledger.over().by("feature")
        sums = ledger.over().sums()
        assert (3, 3.0) == (row.calls, row.cost_usd) == (sums.calls, sums.cost_usd)
        assert 3 == ledger.calls_of_process(PROCESS)
        assert 4 == ledger.size().records


def test_no_feature_and_an_empty_one_are_the_same_and_one_called_null_is_not(
    database_uri: str,
) -> None:
    store(database_uri, free(feature=None), free(feature="null"), free(feature=""))
    with Ledger(database_uri) as ledger:
        assert {None, "null"} == {row.value for row in ledger.over().by("feature")}


def test_an_empty_ledger_has_nothing_in_it(database_uri: str) -> None:
    store(database_uri)
    with Ledger(database_uri) as ledger:
        assert [] == ledger.recent()
        assert LedgerSize(records=0, last_ms=None) == ledger.size()


def test_recent_calls_come_newest_first_and_so_many_as_asked(database_uri: str) -> None:
    calls = [a_call(start_ns=NOW_NS - place * 10**9) for place in range(5)]
    store(database_uri, *reversed(calls))
    with Ledger(database_uri) as ledger:
        assert [call.id for call in calls[:3]] == [row.id for row in ledger.recent(3)]


def test_what_had_no_room_is_told_with_its_processes(database_uri: str) -> None:
    gaps = [
        Gap(id=f"{n:032x}", producer=f"{n:032x}", first_seq=1, last_seq=9, count=n) for n in (3, 4)
    ]
    store(database_uri, *gaps)
    with Ledger(database_uri) as ledger:
        assert Losses(dropped=7, processes=2) == ledger.losses()


TOOL = ToolCall(name="look_up", id="t-1", arguments='{"order": 7}')
RAN = ToolCall(name="look_up", id="t-0", arguments='{"order": 6}', result="sent \u00e9")
CONTENTS: dict[str, dict[str, Any]] = {
    "messages": {"prompt": [{"role": "user", "content": "Hi \u00e9\x00"}], "response": "Yes."},
    "tools": {
        "prompt": [{"role": "user", "content": "Where?"}],
        "response": None,
        "tool_calls": [RAN, TOOL],
    },
    "tool results": {"response": "It left.", "tool_calls": [RAN]},
    "arguments": {"kind": "custom", "prompt": {"ticket": 7}, "response": {"answer": [1, 2]}},
    "plain": {"kind": "embedding", "prompt": ["a", "b"], "response": 3},
    "nothing": {"prompt": None, "response": None},
    "failed": {"outcome": Outcome(success=False, error_type="E", message="m", stack="s\nt")},
}


@pytest.mark.parametrize("store_as", ["run+trace", "run", "trace", "ledger"])
def test_a_call_is_read_back_as_it_was_recorded(sqlite_uri: str, store_as: str) -> None:
    calls = {name: a_call(**fields) for name, fields in CONTENTS.items()}
    store(sqlite_uri, *calls.values(), store_as=store_as)
    with Ledger(sqlite_uri) as ledger:
        read = {name: ledger.call(call.id).content for name, call in calls.items()}
    for name, call in calls.items():
        content = read[name]
        assert (call.prompt, call.response, call.tool_calls, call.outcome.stack) == (
            content.prompt,
            content.response,
            content.tool_calls,
            content.stack,
        ), name


def test_everything_about_a_call_is_there(database_uri: str) -> None:
    call = a_call(
        params={"chunk": 3},
        metrics={"score": 0.5},
        tags={"team": "x"},
        notes=["cut"],
        actor=Actor(user_id="ana", session_id="s", user_role="agent", environment="test"),
    )
    store(database_uri, call)
    with Ledger(database_uri) as ledger:
        read = ledger.call(call.id)
    assert (call.id, f"tr-{call.id}", "support") == (read.id, read.trace_id, read.experiment)
    assert ("ana", "agent", "test") == (read.user_id, read.user_role, read.environment)
    assert ({"chunk": 3}, {"score": 0.5}, {"team": "x"}) == (read.params, read.metrics, read.tags)
    assert ({"temperature": 0.7, "max_tokens": 100}, ["cut"]) == (read.settings, read.notes)
    assert ("h", 7, "app.py", True) == (
        read.process_host,
        read.process_pid,
        read.process_source,
        read.success,
    )


def test_a_call_whose_trace_was_deleted_says_so(sqlite_uri: str) -> None:
    call = a_call()
    store(sqlite_uri, call)
    engine = sa.create_engine(sqlite_uri)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM spans")
    engine.dispose()
    with Ledger(sqlite_uri) as ledger:
        read = ledger.call(call.id)
    assert (None, None) == (read.trace_id, read.content.prompt)
    assert "the trace was deleted" in read.notes[-1]


def test_the_beginning_of_an_id_is_enough_when_only_one_has_it(database_uri: str) -> None:
    one, other = a_call(id="0" * 31 + "1"), a_call(id="abcdef" + "0" * 26)
    store(database_uri, one, other)
    with Ledger(database_uri) as ledger:
        for wanted in (other.id, "abcdef", "ABCDEF0", f"tr-{other.id}", " abcdef-000 "):
            assert other.id == ledger.call(wanted).id, wanted


def test_an_id_that_begins_several_calls_is_answered_with_theirs(sqlite_uri: str) -> None:
    ids = [f"abcdef{number:026x}" for number in range(7)]
    store(sqlite_uri, *(a_call(id=call_id) for call_id in ids))
    with Ledger(sqlite_uri) as ledger, pytest.raises(NotFound) as raised:
        ledger.call("abcdef")
    assert all(call_id in str(raised.value) for call_id in ids[:5])
    assert "and others" in str(raised.value)


@pytest.mark.parametrize("wanted", ["", "abc", "x" * 32, "0" * 33, "%", "' OR 1=1 --"])
def test_what_is_no_id_is_told_what_one_looks_like(sqlite_uri: str, wanted: str) -> None:
    store(sqlite_uri)
    with Ledger(sqlite_uri) as ledger, pytest.raises(NotFound, match="flowledger recent"):
        ledger.call(wanted)


def test_an_id_nobody_has_is_not_found(sqlite_uri: str) -> None:
    store(sqlite_uri)
    with Ledger(sqlite_uri) as ledger, pytest.raises(NotFound, match="no call with the id"):
        ledger.call("abcdef")


def test_a_database_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(
        NotFound, match=r"nothing is stored yet in .*none\.db, which does not exist"
    ):
        Ledger(f"sqlite:///{path}")
    assert not path.exists()


def test_a_database_without_a_ledger_holds_nothing_yet(database_uri: str) -> None:
    with Ledger(database_uri) as ledger, pytest.raises(NotFound, match="nothing is stored yet"):
        ledger.recent()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is text\n" * 500)
    with Ledger(f"sqlite:///{path}") as ledger, pytest.raises(StoreUnavailable, match=r"text\.db"):
        ledger.recent()


def test_a_database_that_does_not_answer_is_named_without_its_password() -> None:
    uri = "postgresql://ana:secret@127.0.0.1:1/x"
    with Ledger(uri) as ledger, pytest.raises(StoreUnavailable) as raised:
        ledger.recent()
    assert "ana@127.0.0.1:1" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "file:///tmp/mlruns"])
def test_what_is_no_database_is_told_where_to_look(uri: str) -> None:
    with pytest.raises(StoreMisconfigured, match="is no database"):
        Ledger(uri)


def test_nothing_can_be_written_through_a_ledger(database_uri: str) -> None:
    store(database_uri, a_call())
    engine = open_engine(database_uri, 30)
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match=r"read-?only"):
        connection.exec_driver_sql("DELETE FROM llm_calls")
    engine.dispose()


def test_the_steps_of_a_call_are_what_happened_around_and_inside_it(database_uri: str) -> None:
    outer = a_call(operation="outer", inner_calls=2, duration_ns=500_000_000)
    start_ns = outer.start_ns
    inner = [
        a_call(operation=name, parent_id=outer.id, start_ns=start_ns + after, duration_ns=10**8)
        for name, after in (("second", 2 * 10**8), ("first", 10**8))
    ]
    store(database_uri, outer, *inner, a_call(operation="elsewhere"))
    with Ledger(database_uri) as ledger:
        expected = [("outer", 0), ("first", 1), ("second", 1)]
        for call in (outer, *inner):
            steps = ledger.steps(ledger.call(call.id))
            assert expected == [(step.name, step.depth) for step in steps]
            assert [outer.id, inner[1].id, inner[0].id] == [step.call_id for step in steps]
        own = ledger.steps(ledger.call(outer.id), readable=[])
        assert ["outer"] == [step.name for step in own]


def test_the_steps_of_a_call_in_a_job_are_those_of_its_trace(database_uri: str) -> None:
    job = Job(id=new_id(), producer=PROCESS, seq=50, start_ns=a_call().start_ns, name="nightly")
    within = Place(root_id=job.id, parent_id=job.id)
    call = a_call(operation="asks", parent_id=job.id, place=within, start_ns=job.start_ns + 10**6)
    whole = msgspec.structs.replace(job, duration_ns=10**9)
    store(database_uri, whole, call)
    with Ledger(database_uri) as ledger:
        steps = ledger.steps(ledger.call(call.id))
    assert [("nightly", 0, None), ("asks", 1, call.id)] == [
        (step.name, step.depth, step.call_id) for step in steps
    ]


def test_the_lag_is_from_the_end_of_a_call_to_its_row(database_uri: str) -> None:
    store(database_uri, *(a_call() for _ in range(3)))
    with Ledger(database_uri) as ledger:
        lag = ledger.over().lag()
        assert (3, True) == (lag.calls, lag.mean_ms is not None)
        assert ledger.first_ms() == ledger.over().sums().first_ms
