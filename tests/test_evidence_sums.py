"""The sums that every page shows are part of the proof: one that no calls add up to is named."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from flowledger.audit.proof import open_proven, verify
from flowledger.audit.sums import compare_sums
from flowledger.records import Actor, encode
from tests.calls import NOW_NS
from tests.test_evidence_proof import execute, named, numbered, sink_of, store

HOUR_NS = 3_600 * 10**9
BEGAN = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=NOW_NS // 10**9)
HOUR, DAY = f"{BEGAN:%Y-%m-%d %H}:00 UTC", f"{BEGAN:%Y-%m-%d}"
ABOUT = "feature support, model gpt-4o-2024-08-06"
LATENCY = f"{ABOUT}, bucket 299"


@pytest.fixture
def filled(database_uri: str) -> str:
    """A database with a few calls of two users in two hours."""
    store(
        database_uri,
        [
            numbered(
                start_ns=NOW_NS - hours * HOUR_NS,
                actor=Actor(user_id=user),
                tags={"detected_intent": "refund", "current_module": "cart"},
                metrics={"confidence_score": 0.1},
            )
            for hours in (0, 1)
            for user in ("ana", "bob")
        ],
    )
    return database_uri


ROLLUP, FACETS = "llm_rollup", "llm_facets"
CHANGES = {
    "a cost": (
        "UPDATE llm_rollup SET cost_usd = cost_usd * 0.99 WHERE span = 1 AND start = :hour",
        ("changed", ROLLUP, f"{ABOUT}, {HOUR}"),
    ),
    "a number of calls": (
        "UPDATE llm_rollup SET calls = calls + 1 WHERE span = 24",
        ("changed", ROLLUP, f"{ABOUT}, {DAY}"),
    ),
    "a bound": (
        "UPDATE llm_rollup SET last_ms = last_ms + 1 WHERE span = 1 AND start = :hour",
        ("changed", ROLLUP, f"{ABOUT}, {HOUR}"),
    ),
    "a latency": (
        "UPDATE llm_latencies SET calls = 1 WHERE span = 1 AND start = :hour",
        ("changed", "llm_latencies", f"{LATENCY}, {HOUR}"),
    ),
    "a latency that is gone": (
        "DELETE FROM llm_latencies WHERE span = 1 AND start = :hour",
        ("removed", "llm_latencies", f"{LATENCY}, {HOUR}"),
    ),
    "whose cost it was": (
        "UPDATE llm_facets SET value = 'eve' WHERE facet = 'user_id' AND value = 'bob'"
        " AND span = 1 AND start = :hour",
        ("removed", FACETS, f"user_id bob, feature support, {HOUR}"),
    ),
    "the sums of an intent": (
        "DELETE FROM llm_facets WHERE facet = 'intent' AND span = 1 AND start = :hour",
        ("removed", FACETS, f"intent refund, feature support, {HOUR}"),
    ),
    "a value nobody has": (
        "INSERT INTO llm_facets SELECT span, start, facet, 'eve', experiment_id, feature, calls,"
        " failed, counted, input_tokens, output_tokens, total_tokens, priced, unpriced, cost_usd,"
        " estimated, estimated_cost_usd,"
        " latency_ms, latency_squared, confidences, confidence, confidence_squared,"
        " template_matches, template_match, first_ms, last_ms FROM llm_facets"
        " WHERE facet = 'user_id' AND value = 'bob' AND span = 1 AND start = :hour",
        ("added", FACETS, f"user_id eve, feature support, {HOUR}"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_sum_that_is_changed_behind_our_back_is_found_and_named(filled: str, change: str) -> None:
    assert verify(filled).intact
    statement, expected = CHANGES[change]
    hour = NOW_NS // HOUR_NS
    values = {"hour": hour} if ":hour" in statement else {}
    assert execute(filled, statement, **values)

    proof = verify(filled)

    assert not proof.intact
    assert expected in {(one.what, one.table, one.id) for one in proof.differences}


def test_a_group_that_was_renamed_or_taken_away_is_named(filled: str) -> None:
    group = f"group {one_value(filled, 'SELECT group_id FROM llm_groups')}"
    execute(filled, "UPDATE llm_groups SET model = 'gpt-4o-mini'")
    assert {("changed", "llm_groups", group)} == named(verify(filled))
    execute(filled, "DELETE FROM llm_groups")
    assert {("removed", "llm_groups", group)} == named(verify(filled))


def one_value(uri: str, query: str) -> object:
    engine = sa.create_engine(uri)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(query).scalar()
    engine.dispose()
    return found


def test_writers_at_work_do_not_look_like_tampering(database_uri: str) -> None:
    store(database_uri, [numbered()])
    stop, begun = threading.Event(), threading.Event()

    def write() -> None:
        with sink_of(database_uri) as sink:
            while not stop.is_set():
                calls = [numbered(start_ns=NOW_NS - n % 50 * HOUR_NS) for n in range(20)]
                assert [] == sink.write([encode(call) for call in calls])
                begun.set()

    writing = threading.Thread(target=write)
    writing.start()
    assert begun.wait(30)
    found = [compare_sums(database_uri, open_proven) for _ in range(20)]
    stop.set()
    writing.join()
    assert [[]] * 20 == found


def test_several_processes_compare_what_one_does(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowledger.audit.sums.PORTION", 10)
    days = [numbered(start_ns=NOW_NS - n * 24 * HOUR_NS) for n in range(4) for _ in range(10)]
    store(sqlite_uri, days)
    execute(sqlite_uri, "UPDATE llm_rollup SET calls = 7 WHERE span = 1")
    one, two = (compare_sums(sqlite_uri, open_proven, n) for n in (1, 2))
    first = BEGAN - timedelta(days=3)
    about = f"{ABOUT}, {first:%Y-%m-%d %H}:00 UTC"
    assert [("changed", ROLLUP, about)] == one == two
