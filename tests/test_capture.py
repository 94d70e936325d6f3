"""Capture: what is recorded of functions, and that nothing else changes."""

import asyncio
import contextlib
import hashlib
import inspect
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import flowledger
from flowledger import logs
from flowledger.capture import recorder
from flowledger.records import Call, Usage
from flowledger.testing import capture_calls

ANSWER = {
    "model": "gpt-4o-2024-08-06",
    "choices": [{"message": {"role": "assistant", "content": "hello", "tool_calls": None}}],
    "usage": {
        "prompt_tokens": 30,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 10},
    },
}


@pytest.fixture
def calls(home: Path) -> Iterator[list[Call]]:
    with capture_calls() as captured:
        yield captured


@pytest.fixture
def carrying(home: Path) -> Iterator[list[Call]]:
    with capture_calls(carry_threads=True) as captured:
        yield captured


@flowledger.track(feature="support", operation="answer")
def answer(question: str, *more: str, tone: str = "kind") -> str:
    """Answer a question."""
    if question == "boom":
        raise ValueError("no answer")
    return question.upper()


def test_a_function_is_recorded_with_what_it_was_asked_and_what_it_answered(
    calls: list[Call],
) -> None:
    assert "WHY" == answer("why", "really", tone="dry")
    [call] = calls
    assert ("support", "answer") == (call.feature, call.operation)
    assert "tests.test_capture.answer" == call.function
    assert {"question": "why", "args": ["really"], "tone": "dry"} == call.prompt
    assert "WHY" == call.response
    assert call.outcome.success
    assert 0 < call.duration_ns
    assert "support" == call.experiment


def test_a_tracked_function_looks_like_itself() -> None:
    assert ("answer", "Answer a question.") == (answer.__name__, answer.__doc__)
    assert ["question", "more", "tone"] == list(inspect.signature(answer).parameters)


def test_what_a_function_raises_is_recorded_and_raised_again(calls: list[Call]) -> None:
    with pytest.raises(ValueError, match="no answer"):
        answer("boom")
    [call] = calls
    outcome = call.outcome
    assert (False, "ValueError", "no answer") == (
        outcome.success,
        outcome.error_type,
        outcome.message,
    )
    assert 'raise ValueError("no answer")' in (outcome.stack or "")


def test_a_method_is_recorded_without_its_object(calls: list[Call]) -> None:
    class Bot:
        @flowledger.track
        def reply(self, text: str) -> str:
            return text

    Bot().reply("hi")
    assert {"text": "hi"} == calls[0].prompt


def test_a_coroutine_is_recorded_when_it_ends(calls: list[Call]) -> None:
    @flowledger.track(kind="chat")
    async def ask(question: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        return ANSWER

    assert inspect.iscoroutinefunction(ask)
    assert ANSWER == asyncio.run(ask("why"))
    [call] = calls
    assert ("hello", "gpt-4o-2024-08-06") == (call.response, call.model)
    expected = Usage(input_tokens=30, output_tokens=4, cached_input_tokens=10)
    assert expected == call.usage


def test_a_cancelled_coroutine_is_a_failed_call(calls: list[Call]) -> None:
    @flowledger.track
    async def sleep() -> None:
        await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.create_task(sleep())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert ["CancelledError"] == [call.outcome.error_type for call in calls]


@flowledger.track
def letters(word: str) -> Generator[str, Any, None]:
    for letter in word:
        got = yield letter
        if got is not None:
            yield f"<{got}>"


def test_a_generator_is_recorded_when_it_ends_with_all_it_yielded(calls: list[Call]) -> None:
    assert ["a", "b", "c"] == list(letters("abc"))
    [call] = calls
    assert "abc" == call.response
    assert call.first_token_ns is not None
    assert call.first_token_ns <= call.duration_ns


def test_a_generator_that_is_closed_early_is_recorded_with_a_note(calls: list[Call]) -> None:
    stream = letters("abc")
    next(stream)
    stream.close()
    [call] = calls
    assert ("a", True) == (call.response, call.outcome.success)
    assert ["closed by the caller before its end"] == call.notes


def test_send_throw_and_return_of_a_generator_work_as_before(calls: list[Call]) -> None:
    @flowledger.track
    def echo() -> Any:
        got = None
        while True:
            try:
                got = yield got
            except KeyError:
                return "done"

    stream = echo()
    assert inspect.isgeneratorfunction(echo)
    assert (None, 5) == (next(stream), stream.send(5))
    with pytest.raises(StopIteration) as stop:
        stream.throw(KeyError())
    assert "done" == stop.value.value
    assert 1 == len(calls)


def test_an_async_generator_is_recorded_when_it_ends(calls: list[Call]) -> None:
    @flowledger.track
    async def count(to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    async def consume() -> list[int]:
        return [number async for number in count(3)]

    assert [0, 1, 2] == asyncio.run(consume())
    assert [0, 1, 2] == calls[0].response


def test_a_generator_leaves_no_context_behind_between_its_items(calls: list[Call]) -> None:
    stream = letters("ab")
    next(stream)
    answer("outside")
    list(stream)
    assert [None, None] == [call.parent_id for call in calls]


def test_a_call_inside_a_call_has_it_for_a_parent(calls: list[Call]) -> None:
    @flowledger.track
    def outer() -> str:
        return answer("inner")

    outer()
    inner_call, outer_call = calls
    assert outer_call.id == inner_call.parent_id
    assert (0, 1) == (inner_call.inner_calls, outer_call.inner_calls)


def test_tokens_reported_inside_are_not_reported_again_outside(calls: list[Call]) -> None:
    @flowledger.track
    def model() -> dict[str, Any]:
        return ANSWER

    @flowledger.track
    def feature() -> dict[str, Any]:
        return model()

    feature()
    assert [34, None] == [call.usage.total_tokens for call in calls]


def test_content_can_be_kept_out(calls: list[Call]) -> None:
    @flowledger.track(content=False)
    def secret(question: str) -> dict[str, Any]:
        return ANSWER

    secret("password?")
    [call] = calls
    assert (None, None, 34) == (call.prompt, call.response, call.usage.total_tokens)


def test_a_context_says_who_asks_and_why(calls: list[Call]) -> None:
    with flowledger.context(user_id=7, session_id="s", audit_reason="billing", tags={"a": 1}):
        with flowledger.context(persona_id="p", user_id="ana", tags={"b": 2}):
            answer("one")
        answer("two")
    answer("three")
    expected = [("ana", "s", "p"), ("7", "s", None), (None, None, None)]
    actual = [(c.actor.user_id, c.actor.session_id, c.actor.persona_id) for c in calls]
    assert expected == actual
    assert [{"a": 1, "b": 2}, {"a": 1}, {}] == [call.tags for call in calls]


def test_the_contexts_environment_wins_over_the_settings(home: Path) -> None:
    with capture_calls(environment="production") as calls:
        answer("one")
        with flowledger.context(environment="canary"):
            answer("two")
    with capture_calls() as plain, flowledger.context(environment="canary"):
        answer("three")
    environments = [call.actor.environment for call in [*calls, *plain]]
    assert ["production", "canary", "canary"] == environments


def test_a_context_decorates_a_function(calls: list[Call]) -> None:
    @flowledger.context(user_id="ana")
    def run() -> None:
        answer("one")

    run()
    run()
    assert ["ana", "ana"] == [call.actor.user_id for call in calls]


def test_threads_are_left_alone_unless_the_setting_asks(home: Path) -> None:
    program = """
import threading
from concurrent.futures import ThreadPoolExecutor

import flowledger
from flowledger.testing import capture_calls

before = threading.Thread.start, ThreadPoolExecutor.submit
with capture_calls() as calls, flowledger.context(user_id="ana"), ThreadPoolExecutor() as pool:
    pool.submit(flowledger.record).result()
    pool.submit(flowledger.carry(flowledger.record)).result()
print([call.actor.user_id for call in calls])
print((threading.Thread.start, ThreadPoolExecutor.submit) == before)
"""
    said = [
        subprocess.check_output(
            [sys.executable, "-c", program], text=True, env={**os.environ, **asked}
        ).splitlines()
        for asked in ({}, {"FLOWLEDGER_CARRY_THREADS": "true"})
    ]
    assert [["[None, 'ana']", "True"], ["['ana', 'ana']", "False"]] == said


def test_a_context_reaches_threads_pools_and_tasks(carrying: list[Call]) -> None:
    async def in_task() -> None:
        await asyncio.create_task(asyncio.to_thread(answer, "task"))

    with flowledger.context(user_id="ana"), ThreadPoolExecutor(1) as pool:
        thread = threading.Thread(target=answer, args=("thread",))
        thread.start()
        pool.submit(answer, "pool").result()
        asyncio.run(in_task())
    thread.join()
    assert {"ana"} == {call.actor.user_id for call in carrying}
    assert 3 == len(carrying)


def test_a_pool_thread_keeps_nothing_of_the_last_context(carrying: list[Call]) -> None:
    with ThreadPoolExecutor(1) as pool:
        with flowledger.context(user_id="ana"):
            pool.submit(answer, "one").result()
        pool.submit(answer, "two").result()
    assert ["ana", None] == [call.actor.user_id for call in carrying]


def test_a_thread_that_serves_in_the_background_keeps_no_context(carrying: list[Call]) -> None:
    with flowledger.context(user_id="ana"):
        background = threading.Thread(target=answer, args=("one",), daemon=True)
        background.start()
        given = threading.Thread(target=flowledger.carry(answer), args=("two",), daemon=True)
        background.join()
        given.start()
        given.join()
    assert [None, "ana"] == [call.actor.user_id for call in carrying]


def test_record_writes_down_what_already_happened(calls: list[Call]) -> None:
    call_id = flowledger.record(
        model="gpt-4o",
        prompt="why",
        response="because",
        input_tokens=3,
        output_tokens=1,
        latency_ms=12.5,
        user_id="ana",
        started=datetime(2026, 1, 2, tzinfo=UTC),
        metrics={"confidence": 0.9},
    )
    [call] = calls
    assert call_id == call.id
    assert (12_500_000, 4, "ana") == (
        call.duration_ns,
        call.usage.total_tokens,
        call.actor.user_id,
    )
    assert 1_767_312_000 * 10**9 == call.start_ns


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        ({"started": datetime(2026, 1, 2)}, "the naive start time was read as UTC"),
        ({"latency_ms": "soon"}, "a time in milliseconds could not be read"),
        ({"latency_ms": -1}, "a time in milliseconds could not be read"),
        ({"usage": {"input_tokens": "many"}}, "the usage could not be read"),
        ({"colour": "red"}, "unknown argument colour"),
    ],
)
def test_record_leaves_out_what_it_cannot_use_with_a_note(
    calls: list[Call], arguments: dict[str, Any], note: str
) -> None:
    flowledger.record(model="gpt-4o", **arguments)
    assert any(note in said for said in calls[0].notes)


def test_numbers_of_a_process_have_no_holes(calls: list[Call]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(answer, map(str, range(200))))
    assert list(range(1, 201)) == sorted(call.seq for call in calls)


def test_the_experiment_is_a_template(home: Path) -> None:
    mapping = {"support": "Customer Support"}
    captured = capture_calls(experiment="{persona_id}_{date}", experiments=mapping)
    with captured as calls, flowledger.context(persona_id="bot"):
        flowledger.record(feature="other", started=0.0)
        flowledger.record(feature="support")
    assert ["bot_1970-01-01", "Customer Support"] == [call.experiment for call in calls]


@pytest.mark.parametrize("switch", ["FLOWLEDGER_ENABLED", "MLFLOW_ENABLE_TRACING"])
def test_switched_off_a_decorator_returns_the_function_it_was_given(
    monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setenv(switch, "false")

    def function() -> None:
        """Nothing."""

    assert function is flowledger.track(function)
    assert function is flowledger.track(feature="x")(function)


def test_a_wrong_setting_is_told_once_and_the_application_goes_on(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logs._last.clear()
    flowledger.configure(tracking_uri="s3://bucket")
    try:
        with caplog.at_level(logging.WARNING):
            assert ["A", "B"] == [answer("a"), answer("b")]
        [said] = caplog.messages
        assert "unknown scheme 's3'" in said
    finally:
        flowledger.configure()


def test_threads_that_record_for_the_first_time_at_once_share_one_recorder(home: Path) -> None:
    together = threading.Barrier(8)

    def first_call() -> recorder.Recorder | None:
        together.wait()
        return recorder.active()

    try:
        with ThreadPoolExecutor(8) as threads:
            for _ in range(10):
                flowledger.configure(collector="off")
                found = {call.result() for call in [threads.submit(first_call) for _ in range(8)]}
                assert [recorder.active()] == list(found)
    finally:
        flowledger.configure()


def test_a_fault_of_ours_never_reaches_the_application(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(seq: int, payload: bytes) -> None:
        raise RuntimeError("no journal")

    logs._last.clear()
    settings = flowledger.config.load()
    before = recorder.use(recorder.Recorder(settings, "0" * 32, broken))
    try:
        assert "A" == answer("a")
    finally:
        recorder.use(before)
    assert "a call was not recorded: RuntimeError: no journal" in caplog.text


def test_a_client_that_nobody_knows_comes_back_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    client = object()
    assert client is flowledger.wrap(client)
    assert "no such client is known" in caplog.text


def test_what_cannot_be_encoded_is_recorded_without_its_content(calls: list[Call]) -> None:
    flowledger.record(model="gpt-4o", operation=object(), input_tokens=1)  # type: ignore[arg-type]
    [call] = calls
    assert "object" in call.operation or call.notes


def test_the_same_warning_is_told_once_a_minute_with_a_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("flowledger.logs.time.monotonic", lambda: now[0])
    logs._last.clear()
    for number in range(5):
        logs.warn("test", "lost %d", number)
    now[0] += 61
    logs.warn("test", "lost %d", 9)
    assert ["lost 0", "lost 9 (4 more times since)"] == caplog.messages


def test_calls_inside_a_tracked_function_inherit_its_feature(calls: list[Call]) -> None:
    @flowledger.track(feature="search", experiment="Search")
    def search() -> None:
        flowledger.record(model="gpt-4o", operation="inner")
        answer("keeps its own")

    search()
    flowledger.record(model="gpt-4o", operation="outside")
    expected = [("search", "Search"), ("support", "Search"), ("search", "Search"), (None, None)]
    assert expected == [(call.feature, call.experiment) for call in calls]


def test_the_prompt_is_what_was_asked_also_when_the_function_changes_its_arguments(
    calls: list[Call],
) -> None:
    def asked() -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]

    @flowledger.track
    def plain(messages: list[dict[str, Any]], *more: Any, **options: Any) -> None:
        for changed in (messages, *more, *options.values()):
            changed[0]["content"][0]["text"] = "changed"
            changed.append({"role": "assistant", "content": "Hello"})

    @flowledger.track
    def failing(messages: list[dict[str, Any]]) -> None:
        messages.clear()
        raise ValueError("no answer")

    @flowledger.track
    async def coroutine(messages: list[dict[str, Any]]) -> None:
        await asyncio.sleep(0)
        messages.clear()

    @flowledger.track
    def generator(messages: list[dict[str, Any]]) -> Iterator[str]:
        messages.clear()
        yield "Hello"

    @flowledger.track
    async def async_generator(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
        messages.clear()
        yield "Hello"

    async def read() -> None:
        async for _ in async_generator(asked()):
            pass

    plain(asked(), asked(), history=asked())
    with pytest.raises(ValueError, match="no answer"):
        failing(asked())
    asyncio.run(coroutine(asked()))
    list(generator(asked()))
    asyncio.run(read())
    first, *others = [call.prompt for call in calls]
    assert {"messages": asked(), "args": [asked()], "history": asked()} == first
    assert [{"messages": asked()}] * 4 == others


def test_the_prompt_is_what_was_asked_also_of_objects_and_of_what_must_be_cut(
    calls: list[Call],
) -> None:
    class Asked(msgspec.Struct):
        texts: list[Any]

    @flowledger.track
    def clear(asked: Asked) -> None:
        asked.texts.clear()

    @flowledger.track
    def change(asked: dict[str, Any]) -> None:
        asked["text"], asked["unreadable"] = "changed", "changed"

    clear(Asked(["Hi", object]))
    change({"text": "x" * (1 << 20), "unreadable": "\ud800"})
    assert {"asked": {"texts": ["Hi", repr(object)]}} == calls[0].prompt
    kept = calls[1].prompt["asked"]
    assert ("x" * 100, "?") == (kept["text"][:100], kept["unreadable"])
    digest = hashlib.sha256(b"x" * (1 << 20)).hexdigest()
    assert kept["text"].endswith(f" [cut: 1048576 bytes in all, sha256 {digest}]")
    assert [
        "lone surrogates, which are no characters, were replaced",
        "prompt is cut: it is longer than 262144 bytes",
    ] == calls[1].notes


def test_arguments_that_cannot_be_read_leave_the_function_alone(calls: list[Call]) -> None:
    class Odd(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("no")

        def __repr__(self) -> str:
            raise RuntimeError("no")

    @flowledger.track
    def count(asked: Any) -> int:
        return len(asked)

    nested: Any = []
    nested.append(nested)
    assert [1, 1, 0] == [count(nested), count([Odd()]), count(Odd())]
    assert ["1", "1", "0"] == [str(call.response) for call in calls]
    assert "[cut: too deep]" in str(calls[0].prompt)
    assert [True] * 3 == [call.outcome.success for call in calls]
