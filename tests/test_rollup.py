"""The roll-up: its sums are those of the calls, whatever was stored, corrected and deleted."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowledger import latency
from flowledger.audit.proof import open_proven
from flowledger.audit.sums import compare_sums
from flowledger.config import Destination
from flowledger.records import Actor, Call, Outcome, Prompt, Usage, encode, new_id
from flowledger.store import open_sink
from flowledger.store.bulk import BulkSink
from flowledger.store.rollup import ROLLED_UP, rebuild
from flowledger.store.schema import migrate, migrate_back
from flowledger.store.signatures import MOST_VERSIONS
from tests.calls import NOW_NS, a_call, any_call

DAY_NS = 86_400 * 10**9
names = st.sampled_from([None, "", "a", "b", "\N{GREEK SMALL LETTER ALPHA}" * 300])
summed = st.builds(
    a_call,
    id=st.builds(new_id),
    start_ns=st.integers(NOW_NS - 3 * DAY_NS, NOW_NS),
    duration_ns=st.integers(0, 10**13),
    feature=names,
    experiment=st.sampled_from(["one", "two"]),
    model=names,
    actor=st.builds(Actor, user_id=names, persona_id=names, user_role=names),
    usage=st.builds(Usage, input_tokens=st.none() | st.integers(-5, 2**63 - 1)),
    outcome=st.builds(Outcome, success=st.booleans(), error_type=names),
    prompt_version=st.builds(Prompt, version=names, hash=names),
    cost_usd=st.none() | st.floats(0, 100),
    inner_calls=st.sampled_from([0, 0, 0, 2]),
    metrics=st.dictionaries(
        st.sampled_from(["confidence_score", "confidence", "template_match_rate"]),
        st.floats() | st.sampled_from([0, 0.5, True, "high"]),
    ),
    tags=st.dictionaries(
        st.sampled_from(["detected_intent", "current_module", "dspy_version", "prompt_version"]),
        st.text(max_size=5) | st.integers(0, 9),
    ),
)


def open_bulk_sink(uri: str) -> BulkSink:
    place = Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as="run+trace")
    sink = open_sink(place)
    assert isinstance(sink, BulkSink)
    return sink


@pytest.fixture
def sink(database_uri: str) -> Iterator[BulkSink]:
    """A bulk sink over each database in turn."""
    sink = open_bulk_sink(database_uri)
    yield sink
    sink.close()


def sums(connection: sa.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that is summed up, without the order and the last digits of sums of floats."""
    return {
        table: sorted(
            tuple(f"{value:.6g}" if isinstance(value, float) else value for value in row)
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}")
        )
        for table in ROLLED_UP
    }


def assert_true_sums(uri: str) -> None:
    """Adding up all calls anew changes nothing, and the proof of evidence finds no difference."""
    assert [] == compare_sums(uri, open_proven)
    engine = sa.create_engine(uri)
    with engine.begin() as connection:
        kept = sums(connection)
        rebuild(connection.exec_driver_sql, 0, 10**6)
        assert sums(connection) == kept
        connection.rollback()
    engine.dispose()


def counted(uri: str, column: str = "calls") -> Any:
    engine = sa.create_engine(uri)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(f"SELECT SUM({column}) FROM llm_rollup WHERE span = 1")
        total = found.scalar()
    engine.dispose()
    return total


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(summed | any_call(), max_size=5), max_size=3))
def test_the_sums_are_those_of_the_calls(
    sink: BulkSink, database_uri: str, batches: list[list[Call]]
) -> None:
    for batch in batches:
        assert [] == sink.write([encode(call) for call in batch])
    assert_true_sums(database_uri)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(summed, min_size=2, max_size=8), corrected=summed)
def test_corrections_and_deletions_keep_the_sums_true(
    sink: BulkSink, database_uri: str, calls: list[Call], corrected: Call
) -> None:
    sink.write([encode(call) for call in calls])
    sink.remove([calls[0].id, "f" * 32])
    sink.correct(msgspec.structs.replace(corrected, id=calls[1].id))
    assert_true_sums(database_uri)


def test_a_call_that_is_removed_is_gone_from_every_table(sink: BulkSink, database_uri: str) -> None:
    prompt = Prompt(name="greeting", version="2")
    kept, gone = a_call(tags={"team": "a"}), a_call(tags={"team": "b"}, prompt_version=prompt)
    sink.write([encode(kept), encode(gone)])
    sink.remove([gone.id])
    engine = sa.create_engine(database_uri)
    metadata = sa.MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                assert gone.id not in str(row), table.name
    engine.dispose()
    assert 1 == counted(database_uri)


def test_a_corrected_call_has_only_its_new_numbers(sink: BulkSink, database_uri: str) -> None:
    call = a_call(usage=Usage(input_tokens=1, output_tokens=2), cost_usd=1.0)
    sink.write([encode(call)])
    sink.correct(msgspec.structs.replace(call, cost_usd=0.25, start_ns=NOW_NS - 2 * DAY_NS))
    assert (1, 0.25) == (counted(database_uri), counted(database_uri, "cost_usd"))
    assert_true_sums(database_uri)


def test_calls_stored_at_the_same_time_are_all_counted(database_uri: str) -> None:
    def write(_: int) -> None:
        sink = open_bulk_sink(database_uri)
        for _ in range(5):
            assert [] == sink.write([encode(a_call(feature=f"f{n}")) for n in range(10)])
        sink.remove([new_id()])
        sink.close()

    open_bulk_sink(database_uri).close()
    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    assert 200 == counted(database_uri)
    assert_true_sums(database_uri)


def test_calls_stored_before_there_was_a_rollup_are_in_it(database_uri: str) -> None:
    sink = open_bulk_sink(database_uri)
    tags = {"detected_intent": "buy", "dspy_version": "3.4"}
    calls = [a_call(tags=tags, metrics={"confidence_score": 0.5}), a_call(feature=None)]
    sink.write([encode(call) for call in calls])
    sink.close()
    engine = sa.create_engine(database_uri)
    derived = "group_id, latency_bucket, confidence, intent, dspy_version"
    with engine.begin() as connection:
        before = sums(connection)
        rows = connection.exec_driver_sql(f"SELECT {derived} FROM llm_calls ORDER BY id").all()
    migrate_back(engine, 3)
    migrate(engine)
    with engine.connect() as connection:
        assert before == sums(connection)
        again = connection.exec_driver_sql(f"SELECT {derived} FROM llm_calls ORDER BY id").all()
        assert rows == again
    engine.dispose()


@given(st.floats(0, 1e9))
def test_a_bucket_is_within_two_per_cent_of_what_is_in_it(milliseconds: float) -> None:
    middle = latency.middle_of(latency.bucket_of(milliseconds))
    assert milliseconds <= 0.001 or math.isclose(middle, milliseconds, rel_tol=0.02)


@given(st.lists(st.floats(1, 1e6), min_size=1), st.sampled_from([1, 50, 90, 95, 99, 100]))
def test_a_percentile_is_within_two_per_cent_of_the_nearest_rank(
    latencies: Sequence[float], percent: int
) -> None:
    exact = sorted(latencies)[math.ceil(percent / 100 * len(latencies)) - 1]
    found = latency.percentile([(latency.bucket_of(ms), 1) for ms in latencies], percent)
    assert found is not None
    assert math.isclose(found, exact, rel_tol=0.02)


def test_the_percentile_of_no_calls_is_unknown() -> None:
    assert latency.percentile([], 50) is None


def test_instructions_that_are_others_in_every_call_make_no_groups(
    sink: BulkSink, database_uri: str
) -> None:
    calls = [
        a_call(prompt=[{"role": "system", "content": f"Document {n}"}])
        for n in range(MOST_VERSIONS)
    ]
    sink.write([encode(call) for call in calls])
    before = counted(database_uri)
    sink.write([encode(a_call(prompt=[{"role": "system", "content": f"{n}"}])) for n in range(50)])
    assert before + 50 == counted(database_uri)
    assert MOST_VERSIONS + 1 == counted(database_uri, "1")
