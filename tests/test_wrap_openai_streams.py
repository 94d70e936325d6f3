"""A stream of a wrapped `openai` client is recorded once, in whichever way it ends."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI, Stream
from openai.types.chat import ChatCompletionChunk

import flowledger
from flowledger.integrations import sdk_parts
from flowledger.journal import Segment
from flowledger.records import Call, ToolCall, decode
from flowledger.testing import capture_calls
from flowledger.testing.llm import StubLLM
from tests.openai_clients import (
    ASK,
    FLAT_TOOL,
    MODEL,
    RESPONSE,
    STREAMED,
    TOOL,
    arrived,
    canned,
    events,
    http,
    make,
    seen,
    steer,
)

LEFT = ["closed by the caller before its end"]
LONG = steer(tokens=40)


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


def stream(client: OpenAI, **wishes: Any) -> Any:
    return client.chat.completions.create(**STREAMED, **(wishes or LONG))


def said(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def chunk(text: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return {**head, "choices": [choice], **more}


def test_a_stream_is_recorded_with_its_text_its_tokens_and_its_first_token(
    stub: StubLLM, client: OpenAI, calls: list[Call]
) -> None:
    answer = stream(client)
    assert type(answer) is Stream
    text = said(list(answer))
    assert stub.requests[-1].json["stream_options"] == {"include_usage": True}
    [call] = calls
    assert call.response == text
    assert call.params == {"finish_reason": "stop"}
    assert call.settings == {"stream": True}
    assert [call.model, call.usage.output_tokens, call.usage.source] == [MODEL, 40, "reported"]
    assert call.first_token_ns is not None
    assert 0 < call.first_token_ns < call.duration_ns
    assert call.notes == []


def test_a_caller_who_wants_the_usage_gets_it(client: OpenAI, calls: list[Call]) -> None:
    chunks = list(stream(client, stream_options={"include_usage": True}))
    assert chunks[-1].usage is not None
    [call] = calls
    assert call.usage.total_tokens == chunks[-1].usage.total_tokens
    assert call.settings == {"stream": True, "stream_options": {"include_usage": True}}


def test_tool_calls_and_choices_are_put_together(client: OpenAI, calls: list[Call]) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=ASK, tools=[TOOL])
    list(stream(client, tools=[TOOL]))
    two = client.chat.completions.create(model=MODEL, messages=ASK, n=2)
    list(stream(client, n=2))
    [asked] = whole.choices[0].message.tool_calls or []
    assert asked.type == "function"
    assert calls[1].tool_calls == [
        ToolCall(name="get_weather", id=asked.id, arguments=asked.function.arguments)
    ]
    assert calls[1].response is None
    assert calls[3].response == [choice.message.content for choice in two.choices]
    assert [call.usage for call in calls[::2]] == [call.usage for call in calls[1::2]]


def test_streams_of_the_other_endpoints_are_put_together(client: OpenAI, calls: list[Call]) -> None:
    for create, asked in (
        (client.completions.create, {"model": MODEL, "prompt": ["a", "b"]}),
        (client.responses.create, RESPONSE),
        (client.responses.create, {**RESPONSE, "tools": [FLAT_TOOL]}),
    ):
        create(**asked)
        list(create(**asked, stream=True))
        whole, streamed = calls[-2:]
        for name in ("operation", "response", "usage", "tool_calls", "model", "params", "prompt"):
            assert getattr(whole, name) == getattr(streamed, name)
        assert streamed.first_token_ns is not None


def test_the_stream_helpers_are_recorded_once(client: OpenAI, calls: list[Call]) -> None:
    with client.chat.completions.stream(model=MODEL, messages=ASK) as chat:
        completion = chat.get_final_completion()
    with client.responses.stream(model=MODEL, input="Hi") as response:
        final = response.get_final_response()
    assert completion.usage is None
    assert [call.response for call in calls] == [
        completion.choices[0].message.content,
        final.output_text,
    ]
    assert all(call.usage.total_tokens for call in calls)


def test_a_helper_left_early_is_recorded_at_once(client: OpenAI, calls: list[Call]) -> None:
    with client.chat.completions.stream(model=MODEL, messages=ASK, **LONG) as chat:
        next(iter(chat))
    assert [call.notes for call in calls] == [LEFT]


def test_a_stream_closed_early_is_a_success_with_what_came(
    client: OpenAI, calls: list[Call]
) -> None:
    with stream(client) as answer:
        got = [next(answer) for _ in range(5)]
    answer.close()
    [call] = calls
    assert [call.outcome.success, call.response, call.notes] == [True, said(got), LEFT]
    assert call.usage.total_tokens is None


def test_a_stream_may_go_on_after_a_break(client: OpenAI, calls: list[Call]) -> None:
    answer = stream(client)
    first = []
    for one in answer:
        first.append(one)
        break
    assert calls == []
    text = said([*first, *answer])
    assert [(call.response, call.notes) for call in calls] == [(text, [])]


@pytest.mark.parametrize("reads", [0, 3])
def test_a_forgotten_stream_is_recorded_when_it_is_collected(
    client: OpenAI, calls: list[Call], reads: int
) -> None:
    answer = stream(client)
    text = said([next(answer) for _ in range(reads)])
    del answer
    gc.collect()
    assert [(call.response or "", call.notes) for call in calls] == [(text, LEFT)]


def test_a_cut_stream_is_a_failure_with_what_came(client: OpenAI, calls: list[Call]) -> None:
    got: list[Any] = []
    with pytest.raises((openai.APIConnectionError, http.RemoteProtocolError)) as caught:
        got.extend(stream(client, **steer(mode="cut", tokens=40)))
    [call] = calls
    assert call.outcome.error_type == type(caught.value).__name__
    assert call.response == said(got)
    assert said(got)


def test_a_stream_that_tells_of_an_error_is_a_failure(calls: list[Call]) -> None:
    error = {"error": {"message": "Overloaded", "type": "server_error"}}
    broken = flowledger.wrap(canned(lambda body: events(chunk("Yes"), error)))
    with pytest.raises(openai.APIError):
        list(stream(broken))
    [call] = calls
    assert [call.outcome.message, call.response] == ["Overloaded", "Yes"]


def test_an_asynchronous_stream_is_recorded_however_it_ends(
    stub: StubLLM, calls: list[Call]
) -> None:
    async def read() -> list[str]:
        async with make(AsyncOpenAI, stub.url) as made:
            create = flowledger.wrap(made).chat.completions.create
            whole = [one async for one in await create(**STREAMED, **LONG)]
            async with await create(**STREAMED, **LONG) as closed:
                first = [await anext(closed)]
            left = await create(**STREAMED, **LONG)
            await left.close()
            return [said(whole), said(first), ""]

    texts = asyncio.run(read())
    assert [call.response or "" for call in calls] == texts
    assert [call.notes for call in calls] == [[], LEFT, LEFT]
    assert [call.outcome.success for call in calls] == [True] * 3


def test_a_stream_whose_task_is_cancelled_was_left_by_its_caller(
    stub: StubLLM, calls: list[Call]
) -> None:
    async def read() -> None:
        async with make(AsyncOpenAI, stub.url) as made:
            create = flowledger.wrap(made).chat.completions.create
            begun = asyncio.Event()

            async def consume() -> None:
                async for _ in await create(**STREAMED, **steer(tokens=40, chunk_delay=3600)):
                    begun.set()

            task = asyncio.create_task(consume())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(read())
    assert [(call.outcome.success, call.notes) for call in calls] == [(True, LEFT)]


def test_a_request_for_a_stream_that_is_cancelled_is_a_failure(
    stub: StubLLM, calls: list[Call]
) -> None:
    async def read() -> None:
        async with make(AsyncOpenAI, stub.url) as made:
            create = flowledger.wrap(made).chat.completions.create
            expected = len(stub.requests) + 1
            task = asyncio.create_task(create(**STREAMED, **steer(mode="hang")))
            await arrived(stub, expected)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(read())
    assert [call.outcome.error_type for call in calls] == ["CancelledError"]


def test_the_context_is_that_of_the_call_wherever_the_stream_is_read(
    client: OpenAI, calls: list[Call]
) -> None:
    with flowledger.context(user_id="ana", feature="search"):
        answer = stream(client)
    with flowledger.context(user_id="ben"):
        reader = threading.Thread(target=list, args=(answer,))
        reader.start()
        reader.join()
    assert [(call.actor.user_id, call.feature) for call in calls] == [("ana", "search")]


def test_tokens_of_a_stream_inside_a_tracked_generator_count_once(
    client: OpenAI, calls: list[Call]
) -> None:
    @flowledger.track
    def answer() -> Iterator[ChatCompletionChunk]:
        yield from stream(client, stream_options={"include_usage": True})

    list(answer())
    inner, outer = calls
    assert inner.parent_id == outer.id
    assert [bool(inner.usage.total_tokens), bool(outer.usage.total_tokens)] == [True, False]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_knows_no_stream_options_is_asked_again_without_them(
    calls: list[Call], status: int
) -> None:
    bodies: list[Mapping[str, Any]] = []

    def old_server(body: Mapping[str, Any]) -> Any:
        bodies.append(body)
        if "stream_options" in body:
            error = {"message": "Unrecognized request argument supplied: stream_options"}
            return http.Response(status, json={"error": error})
        return events(chunk("Yes"), chunk("."))

    plain, wrapped = canned(old_server), flowledger.wrap(canned(old_server))
    for _ in range(2):
        arguments = {**STREAMED, "extra_body": {"top_k": 3}}
        path = "chat.completions.create"
        assert seen(plain, path, **arguments) == seen(wrapped, path, **arguments)
    assert [(call.response, call.usage.total_tokens) for call in calls] == [("Yes.", None)] * 2
    assert ["stream_options" in body for body in bodies] == [False, True, False, False, False]
    assert {body["top_k"] for body in bodies} == {3}


@pytest.mark.parametrize("asked", [{}, {"stream_options": {"include_usage": True}}])
def test_a_server_that_refuses_anyway_is_heard(calls: list[Call], asked: dict[str, Any]) -> None:
    bodies: list[Mapping[str, Any]] = []

    def refuses(body: Mapping[str, Any]) -> Any:
        bodies.append(body)
        return http.Response(400, json={"error": {"message": "No", "param": "stream_options"}})

    plain, wrapped = canned(refuses), flowledger.wrap(canned(refuses))
    arguments = {**STREAMED, **asked}
    path = "chat.completions.create"
    assert seen(plain, path, **arguments) == seen(wrapped, path, **arguments)
    tries = 1 if asked else 2
    assert ["stream_options" in body for body in bodies[1:]] == [True, False][:tries]
    assert [call.outcome.error_type for call in calls] == ["BadRequestError"]


def test_a_raw_stream_is_sent_as_the_caller_asks_and_recorded(
    stub: StubLLM, client: OpenAI, calls: list[Call]
) -> None:
    answer = client.chat.completions.with_raw_response.create(**STREAMED, **LONG).parse()
    gc.collect()
    text = said(list(answer))
    with client.chat.completions.with_streaming_response.create(**STREAMED, **LONG) as raw:
        list(raw.parse())
    with client.chat.completions.with_streaming_response.create(**STREAMED, **LONG) as raw:
        assert b"".join(raw.iter_bytes()).endswith(b"[DONE]\n\n")
    assert not any("stream_options" in request.json for request in stub.requests[-3:])
    assert [call.response for call in calls] == [text, text, None]
    assert calls[2].notes == ["the answer was taken as raw bytes: its content is not recorded"]


def test_a_long_stream_is_kept_up_to_a_bound(
    client: OpenAI, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk_parts, "MAX_KEPT", 10)
    text = said(list(stream(client)))
    [call] = calls
    assert call.response == text[:10]
    assert call.notes == ["the end of the streamed answer was not kept: it is too long"]
    assert call.usage.output_tokens == 40


def test_a_cut_response_stream_keeps_what_came(stub: StubLLM, calls: list[Call]) -> None:
    with make(OpenAI, stub.url) as made:
        create = flowledger.wrap(made).responses.create
        got: list[str] = []
        with create(**RESPONSE, stream=True, **LONG) as answer:
            while len(got) < 5:
                event = next(answer)
                got += [event.delta] if event.type == "response.output_text.delta" else []
    [call] = calls
    assert [call.response, call.model, call.notes] == ["".join(got), MODEL, LEFT]


SCRIPT = """
import sys, flowledger
from openai import OpenAI
client = flowledger.wrap(OpenAI(base_url=sys.argv[1], api_key="stub"))
answer = client.chat.completions.create(
    model="gpt-4o-mini?tokens=40", messages=[{"role": "user", "content": "Hi"}], stream=True
)
next(answer)
"""


def test_a_stream_open_at_exit_is_in_the_journal(stub: StubLLM, tmp_path: Path) -> None:
    environ = {"FLOWLEDGER_HOME": str(tmp_path), "FLOWLEDGER_COLLECTOR": "off", **os.environ}
    subprocess.run([sys.executable, "-c", SCRIPT, stub.url], env=environ, check=True, cwd=tmp_path)
    [path] = tmp_path.glob("journal/*/*.journal")
    with Segment(path) as segment:
        records = [decode(piece.payload or b"") for piece in segment.read().pieces]
    assert [record.notes for record in records if isinstance(record, Call)] == [LEFT]


def test_the_prompt_is_what_was_asked_also_when_the_messages_change_while_the_answer_is_read(
    client: OpenAI, calls: list[Call]
) -> None:
    parts = [{"type": "text", "text": "Hi"}]
    messages: Any = [{"role": "user", "content": parts, "own": {"seen": ["no"]}}]
    stop = ["\n"]
    answer = client.chat.completions.create(model=MODEL, messages=messages, stop=stop, stream=True)
    messages.append({"role": "assistant", "content": ""})
    parts[0]["text"] = "changed"
    messages[0]["own"]["seen"].append("yes")
    stop.clear()
    list(answer)
    asked = {"role": "user", "content": [{"type": "text", "text": "Hi"}], "own": {"seen": ["no"]}}
    assert [asked] == calls[0].prompt
    assert ["\n"] == calls[0].settings["stop"]
