"""A wrapped client of `openai` behaves like any other, and every call of it is recorded."""

import asyncio
import copy
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion

import flowledger
from flowledger.integrations import openai_reading
from flowledger.records import Call, to_json
from flowledger.testing import capture_calls
from flowledger.testing.llm import StubLLM
from tests.openai_clients import (
    ASK,
    ASKED,
    FLAT_TOOL,
    MODEL,
    RESPONSE,
    STREAMED,
    TOOL,
    WITH_USAGE,
    Weather,
    arrived,
    http,
    make,
    method,
    seen,
    seen_async,
    shown,
    steer,
)

CHAT = "chat.completions.create"
SCENARIOS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, ASKED),
    "two choices": (CHAT, {**ASKED, "n": 2}),
    "tool calls": (CHAT, {**ASKED, "tools": [TOOL]}),
    "structured": ("chat.completions.parse", {**ASKED, "response_format": Weather}),
    "too short": (
        "chat.completions.parse",
        {**ASKED, "response_format": Weather, "max_tokens": 1},
    ),
    "stream": (CHAT, STREAMED),
    "stream with usage": (CHAT, WITH_USAGE),
    "stream without usage": (CHAT, {**STREAMED, "stream_options": {"include_usage": False}}),
    "stream of two": (CHAT, {**STREAMED, "n": 2}),
    "stream of tool calls": (CHAT, {**STREAMED, "tools": [TOOL]}),
    "cut": (CHAT, {**ASKED, **steer(mode="cut")}),
    # The stub cuts at half of what it sends, so both must be sent the same.
    "cut stream": (CHAT, {**WITH_USAGE, **steer(mode="cut", tokens=40)}),
    "malformed": (CHAT, {**ASKED, **steer(mode="malformed")}),
    "malformed stream": (CHAT, {**STREAMED, **steer(mode="malformed")}),
    "completion": ("completions.create", {"model": MODEL, "prompt": ["a", "b"]}),
    "completion stream": ("completions.create", {"model": MODEL, "prompt": "a", "stream": True}),
    "response": ("responses.create", RESPONSE),
    "response stream": ("responses.create", {**RESPONSE, "stream": True}),
    "response with tools": ("responses.create", {**RESPONSE, "tools": [FLAT_TOOL]}),
    "structured response": ("responses.parse", {**RESPONSE, "text_format": Weather}),
    "embeddings": ("embeddings.create", {"model": "text-embedding-3-small", "input": ["a", "b"]}),
    "images": ("images.generate", {"model": "gpt-image-1", "prompt": "a cat"}),
    "wrong": (CHAT, {**ASKED, "temperature": 5}),
    "wrong stream": (CHAT, {**STREAMED, "temperature": 5}),
    "timeout": (CHAT, {**ASKED, "timeout": http.Timeout(30, read=0.3), **steer(mode="hang")}),
    **{f"status {n}": (CHAT, {**ASKED, **steer(status=n)}) for n in (401, 404, 429, 500)},
}


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


@pytest.fixture(scope="module")
def client(stub: StubLLM) -> Iterator[OpenAI]:
    with make(OpenAI, stub.url) as made:
        yield flowledger.wrap(made)


@pytest.fixture
def calls() -> Iterator[list[Call]]:
    with capture_calls() as recorded:
        yield recorded


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_caller_sees_the_same_and_one_call_is_recorded(
    stub: StubLLM, calls: list[Call], scenario: str
) -> None:
    path, arguments = SCENARIOS[scenario]
    with make(OpenAI, stub.url) as plain, make(OpenAI, stub.url) as wrapped:
        expected = seen(plain, path, **arguments)
        assert expected == seen(flowledger.wrap(wrapped), path, **arguments)
    assert [_worked(expected[-1][0])] == [call.outcome.success for call in calls]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_asynchronous_caller_sees_the_same_and_one_call_is_recorded(
    stub: StubLLM, calls: list[Call], scenario: str
) -> None:
    path, arguments = SCENARIOS[scenario]

    async def both() -> list[list[Any]]:
        async with make(AsyncOpenAI, stub.url) as plain, make(AsyncOpenAI, stub.url) as wrapped:
            flowledger.wrap(wrapped)
            return [await seen_async(one, path, **arguments) for one in (plain, wrapped)]

    expected, view = asyncio.run(both())
    assert expected == view
    assert [_worked(expected[-1][0])] == [call.outcome.success for call in calls]


def _worked(last: type) -> bool:
    return not issubclass(last, Exception)


HELPERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": ("chat.completions.stream", ASKED, "get_final_completion"),
    "chat in a form": (
        "chat.completions.stream",
        {**ASKED, "response_format": Weather},
        "get_final_completion",
    ),
    "chat with tools": (
        "chat.completions.stream",
        {**ASKED, "tools": [{**TOOL, "function": {**TOOL["function"], "strict": True}}]},
        "get_final_completion",
    ),
    "response": ("responses.stream", RESPONSE, "get_final_response"),
    "response in a form": (
        "responses.stream",
        {**RESPONSE, "text_format": Weather},
        "get_final_response",
    ),
}


@pytest.mark.parametrize("helper", HELPERS)
def test_the_helpers_for_streams_tell_the_same(
    stub: StubLLM, calls: list[Call], helper: str
) -> None:
    path, arguments, final = HELPERS[helper]

    def told(client: OpenAI) -> list[Any]:
        with method(client, path)(**arguments) as stream:
            events = [shown(event) for event in stream]
            return [*events, shown(getattr(stream, final)())]

    with make(OpenAI, stub.url) as plain, make(OpenAI, stub.url) as wrapped:
        assert told(plain) == told(flowledger.wrap(wrapped))
    assert [call.outcome.success for call in calls] == [True]


@pytest.mark.parametrize(
    ("wishes", "tries", "works"),
    [
        ({"status": 429, "fail_times": 2, "retry_after": 0.001}, 3, True),
        ({"status": 500, "fail_times": 1}, 2, True),
        ({"mode": "cut", "fail_times": 1}, 2, True),
        ({"status": 503, "retry_after": 0.001}, 3, False),
        ({"status": 400}, 1, False),
    ],
    ids=str,
)
def test_retries_go_out_as_they_would_and_count_once(
    stub: StubLLM, calls: list[Call], wishes: dict[str, Any], tries: int, works: bool
) -> None:
    def sent(client: OpenAI, key: str) -> list[Any]:
        before = len(stub.requests)
        asked = {**ASKED, **steer(**wishes, key=f"{wishes} {key}")}
        view = seen(client, CHAT, **asked)
        headers = [request.headers for request in stub.requests[before:]]
        return [view, [one["x-stainless-retry-count"] for one in headers]]

    with make(OpenAI, stub.url, max_retries=2) as plain:
        expected = sent(plain, "plain")
    with make(OpenAI, stub.url, max_retries=2) as wrapped:
        assert expected == sent(flowledger.wrap(wrapped), "wrapped")
    assert expected[1] == [str(n) for n in range(tries)]
    assert [call.outcome.success for call in calls] == [works]


def test_the_client_is_the_same_object_of_the_same_type(stub: StubLLM) -> None:
    with make(OpenAI, stub.url) as made:
        wrapped = flowledger.wrap(made)
        assert wrapped is made
        assert type(wrapped) is OpenAI
        assert type(wrapped.chat.completions) is type(make(OpenAI, stub.url).chat.completions)


def test_other_endpoints_pass_unrecorded(client: OpenAI, calls: list[Call]) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert calls == []


def test_a_retried_call_counts_once(stub: StubLLM, client: OpenAI, calls: list[Call]) -> None:
    before = len(stub.requests)
    wishes = steer(status=429, fail_times=2, key="wrapped retry", retry_after=0.001)
    client.with_options(max_retries=3).chat.completions.create(**ASKED, **wishes)
    assert len(stub.requests) - before == 3
    assert [call.outcome.success for call in calls] == [True]


def test_an_error_is_recorded_with_its_status_and_raised_as_it_is(
    client: OpenAI, calls: list[Call]
) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ASKED, **steer(status=429))
    [call] = calls
    assert call.params == {"error_status": 429}
    assert call.outcome.error_type == "RateLimitError"
    assert call.outcome.message == str(caught.value)
    assert "RateLimitError" in (call.outcome.stack or "")
    assert call.prompt == ASK


def test_a_cancelled_call_is_a_failure(stub: StubLLM, calls: list[Call]) -> None:
    async def cancelled() -> None:
        async with make(AsyncOpenAI, stub.url) as made:
            create = flowledger.wrap(made).chat.completions.create
            expected = len(stub.requests) + 1
            task = asyncio.create_task(create(**ASKED, **steer(mode="hang")))
            await arrived(stub, expected)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    assert [call.outcome.error_type for call in calls] == ["CancelledError"]


def test_the_function_that_calls_is_recorded_but_not_the_event_loop(
    stub: StubLLM, calls: list[Call]
) -> None:
    async def ask() -> None:
        async with make(AsyncOpenAI, stub.url) as made:
            create = flowledger.wrap(made).chat.completions.create
            await create(**ASKED)
            await asyncio.create_task(create(**ASKED))

    asyncio.run(ask())
    here = "test_the_function_that_calls_is_recorded_but_not_the_event_loop"
    assert [call.function for call in calls] == [f"{__name__}.{here}.<locals>.ask", None]


def test_no_key_and_no_header_reaches_a_record(stub: StubLLM, calls: list[Call]) -> None:
    wrapped = flowledger.wrap(make(OpenAI, stub.url, api_key="sk-very-secret\n"))
    for headers in ({}, {"x-token": "also-secret\n"}):
        with pytest.raises(openai.APIConnectionError):
            wrapped.chat.completions.create(**ASKED, extra_headers=headers)
    wrapped.with_options(api_key="sk-very-secret").chat.completions.create(
        **ASKED, extra_body={"api_key": "sk-third-secret"}
    )
    assert len(calls) == 3
    assert not any(b"secret" in to_json(call) for call in calls)
    assert calls[2].settings == {"api_key": "***"}


def test_raw_responses_are_left_alone_and_recorded(client: OpenAI, calls: list[Call]) -> None:
    raw = client.chat.completions.with_raw_response.create(**ASKED)
    assert raw._parsed_by_type == {}
    answer = raw.parse()
    assert raw.headers["x-request-id"]
    assert isinstance(answer, ChatCompletion)
    [call] = calls
    assert call.response == answer.choices[0].message.content
    assert answer.usage is not None
    assert call.usage.total_tokens == answer.usage.total_tokens


@pytest.mark.parametrize("reads", [True, False])
def test_a_body_streamed_raw_is_recorded_when_the_caller_reads_it_whole(
    client: OpenAI, calls: list[Call], reads: bool
) -> None:
    with client.chat.completions.with_streaming_response.create(**ASKED) as raw:
        assert calls == []
        answer = raw.parse() if reads else b"".join(raw.iter_bytes())
    [call] = calls
    if isinstance(answer, ChatCompletion):
        assert [call.response, call.notes] == [answer.choices[0].message.content, []]
    else:
        note = "the answer was taken as raw bytes: its content is not recorded"
        assert [call.response, call.notes] == [None, [note]]


def test_an_asynchronous_body_streamed_raw_is_recorded(stub: StubLLM, calls: list[Call]) -> None:
    async def read() -> Any:
        async with make(AsyncOpenAI, stub.url) as made:
            create = flowledger.wrap(made).chat.completions.with_streaming_response.create
            async with create(**ASKED) as raw:
                return await raw.parse()

    answer = asyncio.run(read())
    assert [call.response for call in calls] == [answer.choices[0].message.content]


def test_copies_of_a_client_are_recorded_too(stub: StubLLM, calls: list[Call]) -> None:
    with make(OpenAI, stub.url) as made:
        wrapped = flowledger.wrap(made)
        for other in (wrapped.copy(), wrapped.with_options(timeout=5).with_options(max_retries=1)):
            assert type(other) is OpenAI
            other.chat.completions.create(**ASKED)
    assert len(calls) == 2


def test_a_shallow_copy_goes_its_own_way(stub: StubLLM, calls: list[Call]) -> None:
    with make(OpenAI, stub.url) as made:
        other = copy.copy(flowledger.wrap(made))
        other.api_key = "another"
        assert vars(other).keys() == vars(make(OpenAI, stub.url)).keys()
        flowledger.wrap(other).chat.completions.create(**ASKED)
    assert len(calls) == 1


def test_a_client_wrapped_twice_is_recorded_once(stub: StubLLM, calls: list[Call]) -> None:
    with make(OpenAI, stub.url) as made:
        flowledger.wrap(flowledger.wrap(made)).chat.completions.create(**ASKED)
    assert len(calls) == 1


def test_switched_off_the_client_is_not_touched(
    stub: StubLLM, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWLEDGER_ENABLED", "false")
    with make(OpenAI, stub.url) as made:
        before = dict(vars(made))
        assert flowledger.wrap(made) is made
        assert vars(made) == before
        made.chat.completions.create(**ASKED)
    assert calls == []


def test_what_is_no_client_comes_back_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    resource = OpenAI(api_key="stub").chat
    assert flowledger.wrap(resource) is resource
    assert "no such client" in caplog.text


def test_a_client_that_cannot_be_wrapped_works_on_with_a_warning(
    stub: StubLLM, calls: list[Call], caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(OpenAI):
        @property
        def copy(self) -> Any:
            raise ValueError("no copies")

    with make(Odd, stub.url) as made:
        assert flowledger.wrap(made) is made
        assert made.chat.completions.create(**ASKED).choices
    assert "are not recorded" in caplog.text
    assert calls == []


def test_tokens_of_a_call_inside_a_tracked_function_count_once(
    client: OpenAI, calls: list[Call]
) -> None:
    @flowledger.track
    def answer() -> Any:
        return client.chat.completions.create(**ASKED)

    answer()
    inner, outer = calls
    assert inner.parent_id == outer.id
    assert inner.usage.total_tokens
    assert outer.usage.total_tokens is None


def test_who_asks_is_recorded(client: OpenAI, calls: list[Call]) -> None:
    with flowledger.context(user_id="ana", feature="search"):
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert [(call.actor.user_id, call.feature) for call in calls] == [("ana", "search")]


def test_a_fault_of_ours_leaves_the_call_alone(
    client: OpenAI, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(answer: Any) -> Any:
        raise ValueError("ours")

    chat = openai_reading.ENDPOINTS["chat/completions"]
    monkeypatch.setitem(openai_reading.ENDPOINTS, "chat/completions", chat._replace(read=fails))
    assert client.chat.completions.create(**ASKED).choices
    assert list(client.chat.completions.create(**STREAMED))
    assert [call.notes for call in calls] == [["the answer could not be read"]] * 2
