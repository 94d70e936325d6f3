"""`flowledger.call`: a call under way whose parts become known one after another."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

import flowledger
from flowledger.questions import Ledger
from flowledger.records import Span, Usage
from flowledger.testing import Captured, capture_calls


@pytest.fixture
def calls(home: Path) -> Iterator[Captured]:
    with capture_calls() as captured:
        yield captured


def test_a_call_has_all_that_became_known_while_it_was_open(calls: Captured) -> None:
    with flowledger.call("classify", feature="intents", model="m", prompt="Hi") as call:
        call.set_tag("detected_intent", "greet")
        flowledger.log_metric("confidence_score", 0.5)
        call.answered({"intent": "greet"}, model="m-1", input_tokens=3, output_tokens=1)
    [made] = calls
    assert calls == calls.records
    assert (call.id, "classify", "intents", "Hi") == (
        made.id,
        made.operation,
        made.feature,
        made.prompt,
    )
    assert ("m", "m-1", Usage(input_tokens=3, output_tokens=1)) == (
        made.model_asked,
        made.model,
        made.usage,
    )
    assert ({"confidence_score": 0.5}, {"detected_intent": "greet"}) == (made.metrics, made.tags)
    assert (True, True) == (made.outcome.success, made.duration_ns > 0)


def test_what_is_raised_inside_makes_it_a_failure_and_is_raised_again(calls: Captured) -> None:
    with pytest.raises(ValueError, match="odd"), flowledger.call("classify"):
        raise ValueError("odd")
    assert ("ValueError", "odd") == (calls[0].outcome.error_type, calls[0].outcome.message)


def test_it_can_fail_without_anything_raised_through_it(calls: Captured) -> None:
    with flowledger.call("classify") as call:
        call.failed(TimeoutError("late"))
    assert (False, "TimeoutError") == (calls[0].outcome.success, calls[0].outcome.error_type)


def test_what_it_cannot_use_reaches_no_application(calls: Captured) -> None:
    odd: Any = object()
    with flowledger.call("classify", params=odd, settings=odd) as call:
        call.answered("x", usage=odd, input_tokens=odd)
        call.failed(odd)
        call.log_metrics(odd)
    with flowledger.call("classify") as call:
        call.answered("x", usage=odd)
    first, second = calls
    assert (True, True) == (bool(first.notes), bool(second.notes))


def test_it_may_end_in_another_thread_than_it_began_in(calls: Captured) -> None:
    def begin_here_and_end_there() -> None:
        open_call = ExitStack()
        open_call.enter_context(flowledger.call("classify"))
        ending = threading.Thread(target=open_call.close)
        ending.start()
        ending.join()

    copy_context().run(begin_here_and_end_there)
    assert ["classify"] == [call.operation for call in calls]


def test_tokens_that_a_call_inside_has_told_are_not_told_again(calls: Captured) -> None:
    with flowledger.call("outer", feature="f") as call:
        flowledger.record(model="m", input_tokens=3, output_tokens=1)
        call.answered("x", input_tokens=3, output_tokens=1)
    inner, outer = calls
    assert ("f", outer.id, 1) == (inner.feature, inner.parent_id, outer.inner_calls)
    assert Usage() == outer.usage


def test_a_function_that_asks_a_model_itself_counts_and_the_look_up_inside_it_does_not(
    home: Path, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWLEDGER_TRACKING_URI", sqlite_uri)
    flowledger.configure()

    @flowledger.track_rag("f", "look_up")
    def look_up() -> list[str]:
        return ["a"]

    @flowledger.track_text("f", "write")
    def write() -> dict[str, object]:
        look_up()
        return {"text": "b", "cost": 0.25, "confidence": 0.5}

    write()
    assert flowledger.flush(180)
    with Ledger(sqlite_uri) as ledger:
        sums = ledger.over().sums()
    assert (1, 0.25, 0.5) == (sums.calls, sums.cost_usd, sums.mean_confidence)


def test_scores_and_tags_logged_while_it_is_open_are_in_the_ledgers_numbers(
    home: Path, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWLEDGER_TRACKING_URI", sqlite_uri)
    flowledger.configure()
    for score in (0.25, 0.75):
        with flowledger.call("classify", feature="intents"):
            flowledger.log_metric("confidence_score", score)
            flowledger.set_tag("detected_intent", "greet")
    assert flowledger.flush(180)
    with Ledger(sqlite_uri) as ledger:
        over = ledger.over()
        assert (2, 0.5) == (over.sums().calls, over.sums().mean_confidence)
        assert [("greet", 2)] == [(part.value, part.calls) for part in over.by("intent")]


def test_the_prompt_is_what_it_was_when_the_call_began(calls: Captured) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    wishes = {"stop": ["\n"]}
    with flowledger.call("answer", prompt=messages, settings=wishes) as call:
        messages.append({"role": "assistant", "content": "Hello"})
        messages[0]["content"] = "changed"
        wishes["stop"].clear()
        call.answered("Hello")
    assert [{"role": "user", "content": "Hi"}] == calls[0].prompt
    assert {"stop": ["\n"]} == calls[0].settings


def test_the_inputs_of_a_span_are_what_they_were_when_they_were_given(calls: Captured) -> None:
    first, second = ["first"], ["second"]
    with flowledger.span("one", inputs=first):
        first.clear()
    with flowledger.span("two") as span:
        span.set_inputs(second)
        second.clear()
    spans = [record for record in calls.records if isinstance(record, Span)]
    assert [["first"], ["second"]] == [span.inputs for span in spans]
