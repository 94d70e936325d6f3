"""Questions to a window: the same as counting its calls one by one, whatever the filters are."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowledger.config import Destination
from flowledger.errors import NotFound, QuestionError
from flowledger.questions import (
    ALWAYS,
    DIMENSIONS,
    ORDERS,
    Filters,
    Ledger,
    Over,
    Sums,
    Window,
)
from flowledger.records import Actor, Call, Outcome, Prompt, Usage, encode, new_id
from flowledger.store import open_sink
from flowledger.store.entries import entry
from tests.calls import a_call
from tests.conftest import postgres_database

DAY_MS, HOUR_MS, MINUTE_MS = 86_400_000, 3_600_000, 60_000
END_MS = 1_767_225_600_000 + 5 * HOUR_MS  # an hour of a day, some days after the first call
START_MS = END_MS - 5 * DAY_MS
chance = random.Random(11)


def some_call() -> Call:
    """A call like others at another time: few values of each dimension, so that groups form."""
    failed = chance.random() < 0.3
    grouping = chance.random() < 0.1
    return a_call(
        id=new_id(),
        start_ns=chance.randrange(START_MS, END_MS) * 1_000_000,
        duration_ns=round(chance.lognormvariate(7, 1) * 1e6),
        feature=chance.choice(["support", "search", None, "", "support"]),
        experiment=chance.choice(["one", "two"]),
        model=chance.choice(["gpt-4o", "house-7b"]),
        model_asked=None,
        provider=chance.choice(["openai", "house"]),
        kind=chance.choice(["chat", "custom"]),
        operation=chance.choice(["answer", "find"]),
        actor=Actor(
            user_id=chance.choice(["ana", "ben", None, "", "x" * 300]),
            session_id=chance.choice([f"s-{n}" for n in range(9)]),
            persona_id=chance.choice(["helper", None]),
            user_role=chance.choice(["admin", "user", None]),
        ),
        usage=Usage(input_tokens=chance.choice([None, 10, 200]), output_tokens=None),
        outcome=Outcome(
            success=not failed, error_type=chance.choice(["A", "B"]) if failed else None
        ),
        prompt_version=Prompt(version=chance.choice([None, "1", "2"]), hash="h"),
        cost_usd=chance.choice([None, 0.25, 0.5]),
        inner_calls=2 if grouping else 0,
        metrics={"confidence_score": chance.random()} if chance.random() < 0.5 else {},
        tags={"team": chance.choice(["red", "blue", ""]), "dspy_version": "3.4"},
    )


CALLS = [some_call() for _ in range(300)]
BY_ID = {call.id: call for call in CALLS}
ENTRIES = {call.id: entry(call) for call in CALLS}  # tokens counted and prices found


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def ledger(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ledger]:
    """A ledger of these calls, on each database in turn."""
    if request.param == "sqlite":
        uri = f"sqlite:///{tmp_path_factory.mktemp('windows') / 'mlflow.db'}"
        Path(uri.removeprefix("sqlite:///")).write_bytes(
            request.getfixturevalue("empty_sqlite").read_bytes()
        )
        yield from filled(uri)
    else:
        with postgres_database(request.getfixturevalue("postgres_server")) as uri:
            yield from filled(uri)


def filled(uri: str) -> Iterator[Ledger]:
    sink = open_sink(Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as="ledger"))
    assert [] == sink.write([encode(call) for call in CALLS])
    sink.close()
    with Ledger(uri) as ledger:
        yield ledger


windows = st.one_of(
    st.just(ALWAYS),
    st.builds(
        lambda start, length: Window(start, start + length),
        st.integers(START_MS - DAY_MS, END_MS),
        st.integers(0, 6 * DAY_MS) | st.integers(0, 2 * HOUR_MS),
    ),
    st.builds(
        lambda first, hours: Window(first * HOUR_MS, (first + hours) * HOUR_MS),
        st.integers(START_MS // HOUR_MS, END_MS // HOUR_MS),
        st.integers(0, 100),
    ),
)
filters = st.builds(
    Filters,
    experiment=st.sampled_from([None, None, "one", "two"]),
    feature=st.sampled_from([None, None, "support", "search"]),
    persona_id=st.sampled_from([None, None, "helper", "nobody"]),
    model=st.sampled_from([None, None, "gpt-4o"]),
    provider=st.sampled_from([None, None, "house"]),
    prompt_version=st.sampled_from([None, None, "1", "h"]),
    user_id=st.sampled_from([None, None, None, "ana", "x" * 300]),
    session_id=st.sampled_from([None, None, None, "s-1"]),
    kind=st.sampled_from([None, None, "chat", "nothing"]),
    status=st.sampled_from([None, None, "success", "failed"]),
    tag=st.sampled_from([None, None, None, "team=red", "team=' OR 1=1 --"]),
)


def meant(call: Call, window: Window, wanted: Filters) -> bool:
    """Whether a question over this window and these filters is about the call."""
    key, _, value = (wanted.tag or "team=").partition("=")
    return (
        window.start_ms <= call.start_ns // 1_000_000 < window.end_ms
        and wanted.experiment in (None, call.experiment)
        and wanted.feature in (None, call.feature)
        and wanted.persona_id in (None, call.actor.persona_id)
        and wanted.model in (None, call.model)
        and wanted.provider in (None, call.provider)
        and wanted.prompt_version in (None, call.prompt_version.version or "h")
        and wanted.user_id in (None, call.actor.user_id)
        and wanted.session_id in (None, call.actor.session_id)
        and wanted.kind in (None, call.kind)
        and wanted.status in (None, "success" if call.outcome.success else "failed")
        and (wanted.tag is None or call.tags[key] == value)
    )


def counted(window: Window, wanted: Filters) -> list[Call]:
    return [call for call in CALLS if not call.inner_calls and meant(call, window, wanted)]


def of(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation."""
    if not values:
        return 0.0, 0.0
    mean = math.fsum(values) / len(values)
    square = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(square / (len(values) - 1)) if len(values) > 1 else 0.0


@given(window=windows, wanted=filters)
def test_sums_are_those_of_every_call_that_is_meant(
    ledger: Ledger, window: Window, wanted: Filters
) -> None:
    calls = counted(window, wanted)
    sums = ledger.over(window, wanted).sums()
    assert (len(calls), sum(not call.outcome.success for call in calls)) == (
        sums.calls,
        sums.failed,
    )
    usages = [ENTRIES[call.id].call.usage for call in calls]
    costs = [cost.total for call in calls if (cost := ENTRIES[call.id].cost)]
    assert sum(usage.total_tokens or 0 for usage in usages) == sums.total_tokens
    assert len(costs) == sums.priced
    assert math.isclose(math.fsum(costs), sums.cost_usd, rel_tol=1e-9)
    latencies = of([call.duration_ns / 1e6 for call in calls])
    assert latencies == pytest.approx((sums.mean_latency_ms, sums.latency_std_ms), rel=1e-6)
    scores = [call.metrics["confidence_score"] for call in calls if call.metrics]
    assert of(scores) == pytest.approx((sums.mean_confidence, sums.confidence_std), abs=1e-6)
    starts = [call.start_ns // 1_000_000 for call in calls]
    bounds = (min(starts, default=None), max(starts, default=None))
    assert bounds == (sums.first_ms, sums.last_ms)


BY: dict[str, Callable[[Call], Any]] = {
    "experiment": lambda call: call.experiment,
    "feature": lambda call: call.feature or None,
    "status": lambda call: "success" if call.outcome.success else "failed",
    "error_type": lambda call: call.outcome.error_type,
    "prompt_version": lambda call: call.prompt_version.version or "h",
    "user_id": lambda call: (call.actor.user_id or "")[:250] or None,
    "user_role": lambda call: call.actor.user_role,
    "operation": lambda call: call.operation,
    "session_id": lambda call: call.actor.session_id,
    "tag:team": lambda call: call.tags["team"],
    "tag:none": lambda call: None,
}


@given(window=windows, wanted=filters, dimension=st.sampled_from(sorted(BY)))
def test_calls_are_told_apart_by_any_dimension(
    ledger: Ledger, window: Window, wanted: Filters, dimension: str
) -> None:
    expected = Counter(BY[dimension](call) for call in counted(window, wanted))
    rows = ledger.over(window, wanted).by(dimension)
    found = Counter({row.value and row.value[:250]: row.calls for row in rows})
    assert expected == found
    assert sorted((row.calls for row in rows), reverse=True) == [row.calls for row in rows]


@given(
    window=windows,
    wanted=filters,
    dimension=st.sampled_from(["feature", "model", "status", "error_type", "experiment"]),
    order=st.sampled_from(sorted(ORDERS)),
    ascending=st.booleans(),
)
def test_groups_say_at_once_what_is_asked_by_one_dimension_after_the_other(
    ledger: Ledger, window: Window, wanted: Filters, dimension: str, order: str, ascending: bool
) -> None:
    over = ledger.over(window, wanted)
    groups = over.groups()
    asked, found = (one.by(dimension, order=order, ascending=ascending) for one in (over, groups))
    assert_same(over.sums(), groups.sums())
    assert {row.value for row in asked} == {row.value for row in found}
    for row in found:
        assert_same(next(one for one in asked if one.value == row.value), row)
    if order != "value":
        places = [[order_of(row, order) for row in rows] for rows in (asked, found)]
        assert places[0] == pytest.approx(places[1])


def assert_same(one: Sums, other: Sums) -> None:
    for name in Sums.__struct_fields__:
        assert pytest.approx(getattr(one, name)) == getattr(other, name), name


def order_of(row: Sums, order: str) -> float:
    return -1 if order == "mean_confidence" and not row.confidences else getattr(row, order)


def test_groups_do_not_know_what_calls_are_not_grouped_by(ledger: Ledger) -> None:
    with pytest.raises(QuestionError, match="not grouped by user_id"):
        ledger.over().groups().by("user_id")


@given(window=windows, wanted=filters, period=st.sampled_from(["minute", "hour", "day"]))
def test_speeds_are_those_of_all_of_each_part_and_of_each_span_of_time(
    ledger: Ledger, window: Window, wanted: Filters, period: str
) -> None:
    if period == "minute":
        window = Window(window.start_ms, min(window.end_ms, window.start_ms + DAY_MS))
    over = ledger.over(window, wanted)
    speeds = over.speeds("model", period)
    assert over.percentiles() == speeds.whole()
    assert over.percentiles_by("model") == speeds.by_part()
    length = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}[period]
    calls = counted(window, wanted)
    starts = sorted({call.start_ns // 1_000_000 // length * length for call in calls})
    by_period = speeds.by_period()
    assert starts == list(by_period)
    for start, found in by_period.items():
        assert_percentiles(
            [c for c in calls if 0 <= c.start_ns // 1_000_000 - start < length], found
        )


@given(window=windows, wanted=filters, among=st.lists(st.sampled_from([None, "ana", "ben", "zoe"])))
def test_a_trend_among_some_puts_everything_else_together(
    ledger: Ledger, window: Window, wanted: Filters, among: list[str | None]
) -> None:
    expected = Counter(
        (
            call.start_ns // 1_000_000 // DAY_MS * DAY_MS,
            user if (user := call.actor.user_id or None) in among else "others",
        )
        for call in counted(window, wanted)
    )
    rows = ledger.over(window, wanted).trend_by("user_id", "day", among)
    assert expected == Counter({(row.start_ms, row.value): row.calls for row in rows})


@given(
    window=windows,
    wanted=filters,
    order=st.sampled_from(["value", "user_id", "calls", "cost_usd", "last_ms"]),
    ascending=st.booleans(),
)
def test_sessions_come_in_any_order_with_who_had_them(
    ledger: Ledger, window: Window, wanted: Filters, order: str, ascending: bool
) -> None:
    rows = ledger.over(window, wanted).sessions_by(order, ascending=ascending)
    calls = counted(window, wanted)
    assert Counter(call.actor.session_id for call in calls) == {
        row.session_id: row.calls for row in rows
    }
    for row in rows:
        users = {c.actor.user_id for c in calls if c.actor.session_id == row.session_id}
        users -= {None, ""}
        only = users.pop() if len(users) == 1 else None
        assert (only, len(users) + (only is not None)) == (row.user_id, row.users)
    name = {"value": "session_id"}.get(order, order)
    places = [getattr(row, name) or "" if name == "user_id" else getattr(row, name) for row in rows]
    assert sorted(places, reverse=not ascending) == pytest.approx(places)


@given(window=windows, wanted=filters, period=st.sampled_from(["hour", "day"]))
def test_a_trend_has_every_period_with_calls_in_order(
    ledger: Ledger, window: Window, wanted: Filters, period: str
) -> None:
    length = HOUR_MS if period == "hour" else DAY_MS
    expected = Counter(
        call.start_ns // 1_000_000 // length * length for call in counted(window, wanted)
    )
    rows = ledger.over(window, wanted).trend(period)
    assert sorted(expected.items()) == [(row.start_ms, row.calls) for row in rows]


@given(
    window=windows,
    wanted=filters,
    dimension=st.sampled_from(sorted(BY)),
    period=st.sampled_from(["minute", "hour", "day"]),
)
def test_a_trend_is_told_apart_by_any_dimension(
    ledger: Ledger, window: Window, wanted: Filters, dimension: str, period: str
) -> None:
    if period == "minute":
        window = Window(window.start_ms, min(window.end_ms, window.start_ms + DAY_MS))
    length = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}[period]
    expected = Counter(
        (call.start_ns // 1_000_000 // length * length, BY[dimension](call))
        for call in counted(window, wanted)
    )
    rows = ledger.over(window, wanted).trend_by(dimension, period)
    found = Counter({(row.start_ms, row.value and row.value[:250]): row.calls for row in rows})
    assert expected == found
    assert sorted(row.start_ms for row in rows) == [row.start_ms for row in rows]


@pytest.mark.parametrize(
    ("days", "period"), [(1.1, "minute"), (1.0, "second")], ids=["too long", "unknown"]
)
def test_what_no_trend_can_answer_is_refused(ledger: Ledger, days: float, period: str) -> None:
    with pytest.raises(QuestionError, match="period="):
        ledger.over(Window(END_MS - round(days * DAY_MS), END_MS)).trend(period)


@given(window=windows, wanted=filters)
def test_percentiles_are_within_two_per_cent(
    ledger: Ledger, window: Window, wanted: Filters
) -> None:
    over = ledger.over(window, wanted)
    assert_percentiles(counted(window, wanted), over.percentiles())
    for dimension in ("model", "feature"):
        by_value = over.percentiles_by(dimension)
        of = {name: getattr(call, dimension) or None for name, call in BY_ID.items()}
        assert {of[call.id] for call in counted(window, wanted)} == set(by_value)
        for value, found in by_value.items():
            assert_percentiles([c for c in counted(window, wanted) if of[c.id] == value], found)


def assert_percentiles(calls: list[Call], found: Any) -> None:
    latencies = sorted(call.duration_ns / 1e6 for call in calls)
    for percent in (50, 90, 95, 99):
        rank = math.ceil(percent / 100 * len(latencies)) - 1
        expected = pytest.approx(latencies[rank], rel=0.021) if latencies else None
        assert getattr(found, f"p{percent}") == expected


@given(window=windows, wanted=filters, limit=st.integers(1, 40))
def test_pages_hold_every_call_once_newest_first(
    ledger: Ledger, window: Window, wanted: Filters, limit: int
) -> None:
    over = ledger.over(window, wanted)
    expected = sorted(
        ((call.start_ns // 1_000_000, call.id) for call in CALLS if meant(call, window, wanted)),
        reverse=True,
    )
    found, page = [], None
    while True:
        part = over.calls(limit, page)
        found += [(row.start_ms, row.id) for row in part.rows]
        page = part.next
        if page is None:
            break
        assert limit == len(part.rows)
    assert expected == found


@given(window=windows, wanted=filters)
def test_sessions_come_with_the_last_active_first(
    ledger: Ledger, window: Window, wanted: Filters
) -> None:
    over = ledger.over(window, wanted)
    calls = counted(window, wanted)
    turns = Counter(call.actor.session_id for call in calls)
    found, page = [], None
    while True:
        part = over.sessions(2, page)
        found += part.rows
        page = part.next
        if page is None:
            break
    assert turns == {row.session_id: row.calls for row in found}
    last = [(row.last_ms, row.session_id) for row in found]
    assert sorted(last, reverse=True) == last


@given(window=windows, wanted=filters)
def test_prompt_versions_come_with_the_last_used_first(
    ledger: Ledger, window: Window, wanted: Filters
) -> None:
    rows = ledger.over(window, wanted).by_prompt()
    expected = Counter(call.prompt_version.version or "h" for call in counted(window, wanted))
    assert expected == {row.value: row.calls for row in rows}
    assert {"3.4"} >= {row.dspy_version for row in rows}
    assert sorted((row.last_ms or 0 for row in rows), reverse=True) == [r.last_ms for r in rows]


@given(window=windows, wanted=filters)
def test_the_latest_failures_and_runs_are_those_of_the_window(
    ledger: Ledger, window: Window, wanted: Filters
) -> None:
    over = ledger.over(window, wanted)
    newest = sorted(
        counted(window, wanted), key=lambda c: (c.start_ns // 1_000_000, c.id), reverse=True
    )
    failed = [call.id for call in newest if not call.outcome.success]
    assert failed[:5] == [row.id for row in over.failed(5)]
    assert [call.id for call in newest][:5] == [row.id for row in over.runs(5)]


def test_the_window_before_ends_where_this_one_begins(ledger: Ledger) -> None:
    window = Window(END_MS - DAY_MS, END_MS)
    over = ledger.over(window)
    assert len(counted(window.before(), Filters())) == over.sums_before().calls > 0


def test_what_may_not_be_read_is_not_counted(ledger: Ledger) -> None:
    ids = {row.name: row.experiment_id for row in ledger.experiments()}
    calls = counted(ALWAYS, Filters(experiment="one"))
    only = Filters(readable=[ids["one"]])
    assert len(calls) == ledger.over(filters=only).sums().calls
    assert [("one", len(calls))] == [
        (row.value, row.calls) for row in ledger.over(filters=only).by("experiment")
    ]
    assert 0 == ledger.over(filters=Filters(readable=[])).sums().calls
    with pytest.raises(NotFound, match="there are: one"):
        ledger.over(filters=Filters(experiment="two", readable=[ids["one"]]))


def test_every_dimension_can_be_asked_for(ledger: Ledger) -> None:
    for dimension in DIMENSIONS:
        assert ledger.over().by(dimension, limit=3) or dimension in (
            "environment",
            "intent",
            "module",
        )


@pytest.mark.parametrize(
    "ask",
    [
        lambda over: over.by("password"),
        lambda over: over.by("feature; DROP TABLE llm_calls"),
        lambda over: over.by("feature", limit=0),
        lambda over: over.percentiles_by("user_id"),
        lambda over: over.trend("week"),
        lambda over: over.calls(limit=10**9),
        lambda over: over.calls(page="next please"),
        lambda over: over.calls(page="1-"),
        lambda over: over.sessions(page="' OR 1=1"),
        lambda over: Filters(status="good"),
        lambda over: Filters(tag="team"),
        lambda over: Window.last(0),
        lambda over: Window.last(math.nan),
        lambda over: Window.last(1e9),
    ],
)
def test_a_question_that_cannot_be_asked_says_what_to_change(
    ledger: Ledger, ask: Callable[[Over], Any]
) -> None:
    with pytest.raises(QuestionError):
        ask(ledger.over())


def test_names_that_no_call_has_are_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="'x'; there are: search, support"):
        ledger.over(filters=Filters(feature="x"))
    with pytest.raises(NotFound, match="there are: Default, one, two"):
        ledger.over(filters=Filters(experiment="' OR 1=1 --"))
