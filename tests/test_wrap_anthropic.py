"""A wrapped client of `anthropic` behaves like any other, and every call of it is recorded."""

import asyncio
import base64
import gc
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AnthropicBedrock, AnthropicVertex, AsyncAnthropic
from anthropic.resources import Messages
from anthropic.types import Message

import flowledger
from flowledger.integrations import anthropic_reading
from flowledger.pricing import price
from flowledger.records import Call, ToolCall, Usage, to_json
from flowledger.testing import capture_calls
from flowledger.testing.llm import StubLLM
from tests.anthropic_clients import (
    ASK,
    ASKED,
    MODEL,
    PNG,
    TOOL,
    Weather,
    canned,
    http,
    make,
    seen,
    seen_async,
)
from tests.stub_wishes import arrived, steer

CREATE = "messages.create"
LEFT = ["closed by the caller before its end"]
STREAMED: dict[str, Any] = {**ASKED, "stream": True}
THINKS: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
SCENARIOS: dict[str, tuple[str, dict[str, Any]]] = {
    "message": (CREATE, ASKED),
    "tools": (CREATE, {**ASKED, "tools": [TOOL]}),
    "thinking": (CREATE, {**ASKED, **THINKS}),
    "structured": ("messages.parse", {**ASKED, "output_format": Weather}),
    "beta": ("beta.messages.create", ASKED),
    "stream": (CREATE, STREAMED),
    "stream of thoughts": (CREATE, {**STREAMED, **THINKS}),
    "stream of tools": (CREATE, {**STREAMED, "tools": [TOOL]}),
    "helper": ("messages.stream", ASKED),
    "helper with a form": ("messages.stream", {**ASKED, "output_format": Weather}),
    "beta helper": ("beta.messages.stream", {**ASKED, **THINKS, "tools": [TOOL]}),
    "cut": (CREATE, {**ASKED, **steer(mode="cut")}),
    "cut stream": (CREATE, {**STREAMED, **steer(mode="cut", tokens=40)}),
    "malformed": (CREATE, {**ASKED, **steer(mode="malformed")}),
    "malformed stream": (CREATE, {**STREAMED, **steer(mode="malformed")}),
    "malformed helper": ("messages.stream", {**ASKED, **steer(mode="malformed")}),
    "wrong": (CREATE, {**ASKED, "stop_sequences": 5}),
    "wrong stream": (CREATE, {**STREAMED, "max_tokens": 0}),
    "timeout": (CREATE, {**ASKED, "timeout": http.Timeout(30, read=0.3), **steer(mode="hang")}),
    **{f"status {n}": (CREATE, {**ASKED, **steer(status=n)}) for n in (401, 404, 429, 500, 529)},
}
if not hasattr(Messages, "parse"):  # of the oldest package
    del SCENARIOS["structured"], SCENARIOS["helper with a form"]


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


@pytest.fixture(scope="module")
def client(stub: StubLLM) -> Iterator[Anthropic]:
    with make(Anthropic, stub.root) as made:
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
    with make(Anthropic, stub.root) as plain, make(Anthropic, stub.root) as wrapped:
        expected = seen(plain, path, **arguments)
        assert expected == seen(flowledger.wrap(wrapped), path, **arguments)
    assert [_worked(expected)] == [call.outcome.success for call in calls]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_asynchronous_caller_sees_the_same_and_one_call_is_recorded(
    stub: StubLLM, calls: list[Call], scenario: str
) -> None:
    path, arguments = SCENARIOS[scenario]

    async def both() -> list[list[Any]]:
        async with make(AsyncAnthropic, stub.root) as one, make(AsyncAnthropic, stub.root) as two:
            flowledger.wrap(two)
            return [await seen_async(each, path, **arguments) for each in (one, two)]

    expected, view = asyncio.run(both())
    assert expected == view
    assert [_worked(expected)] == [call.outcome.success for call in calls]


def _worked(view: list[Any]) -> bool:
    return not issubclass(view[-1][0], Exception)


def test_the_client_is_the_same_object_of_the_same_type(client: Anthropic) -> None:
    assert flowledger.wrap(client) is client
    assert type(client) is Anthropic


def test_a_message_is_recorded_with_all_it_tells(client: Anthropic, calls: list[Call]) -> None:
    wishes = steer(cached_tokens=2, cache_write_tokens=3)
    answer = client.messages.create(**ASKED, system="Be brief.", stop_sequences=["."], **wishes)
    [block] = answer.content
    assert block.type == "text"
    [call] = calls
    assert call.operation == "messages"
    assert call.function == f"{__name__}.test_a_message_is_recorded_with_all_it_tells"
    assert [call.kind, call.provider] == ["chat", "anthropic"]
    assert [call.model_asked, call.model] == [MODEL, MODEL]
    assert call.settings == {"max_tokens": 200, "stop_sequences": ["."]}
    assert call.prompt == {"messages": ASK, "system": "Be brief."}
    assert call.response == block.text
    assert call.params == {"finish_reason": "end_turn"}
    assert call.usage == Usage(
        input_tokens=answer.usage.input_tokens + 5,
        output_tokens=answer.usage.output_tokens,
        cached_input_tokens=2,
        cache_write_tokens=3,
        cache_write_1h_tokens=0,
        reasoning_tokens=0,
    )
    assert price(call) is not None


def test_thoughts_are_counted_and_not_kept(client: Anthropic, calls: list[Call]) -> None:
    answer = client.messages.create(**ASKED, **THINKS, **steer(reasoning_tokens=12))
    list(client.messages.create(**STREAMED, **THINKS, **steer(reasoning_tokens=12)))
    thought, text = answer.content
    assert thought.type == "thinking"
    assert text.type == "text"
    assert [call.response for call in calls] == [text.text] * 2
    assert [call.usage.reasoning_tokens for call in calls] == [12] * 2
    assert not any(thought.thinking in to_json(call).decode() for call in calls)


def test_tools_and_what_they_returned_are_recorded(client: Anthropic, calls: list[Call]) -> None:
    asked = client.messages.create(**ASKED, tools=[TOOL])
    list(client.messages.create(**STREAMED, tools=[TOOL]))
    [block] = asked.content
    assert block.type == "tool_use"
    told = {"type": "tool_result", "tool_use_id": block.id, "content": "18 degrees"}
    talk: Any = [
        *ASK,
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": [told]},
    ]
    client.messages.create(model=MODEL, max_tokens=99, messages=talk, tools=[TOOL])
    whole, streamed, answered = calls
    assert whole.settings["tools"] == ["get_weather"]
    [tool] = whole.tool_calls
    assert [tool.name, tool.id, json.loads(tool.arguments or "")] == [
        "get_weather",
        block.id,
        block.input,
    ]
    assert [call.name for call in streamed.tool_calls] == ["get_weather"]
    assert json.loads(streamed.tool_calls[0].arguments or "") == block.input
    assert answered.tool_calls == [
        ToolCall(name="get_weather", id=block.id, arguments=tool.arguments, result="18 degrees")
    ]


def test_a_message_with_a_picture_is_vision_and_holds_no_picture(
    client: Anthropic, calls: list[Call]
) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PNG * 12}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "See"}]
    client.messages.create(
        model=MODEL, max_tokens=9, messages=[{"role": "user", "content": content}]
    )
    [call] = calls
    assert call.kind == "vision"
    assert PNG not in to_json(call).decode()


def test_a_stream_is_recorded_as_the_whole_message_is(client: Anthropic, calls: list[Call]) -> None:
    client.messages.create(**ASKED)
    events = list(client.messages.create(**STREAMED))
    with client.messages.stream(**ASKED) as stream:
        stream.until_done()
    assert events[-1].type == "message_stop"
    whole, *others = calls
    for streamed in others:
        for name in ("operation", "response", "usage", "model", "params", "prompt", "notes"):
            assert getattr(whole, name) == getattr(streamed, name)
        assert streamed.first_token_ns is not None
    assert len(others) == 2


def test_a_stream_left_early_is_a_success_with_what_came(
    client: Anthropic, calls: list[Call]
) -> None:
    with client.messages.stream(**ASKED, **steer(tokens=40)) as helper:
        first = next(iter(helper.text_stream))
    with client.messages.create(**STREAMED, **steer(tokens=40)) as stream:
        next(iter(stream))
    forgotten = client.messages.create(**STREAMED, **steer(tokens=40))
    del forgotten
    gc.collect()
    assert [call.notes for call in calls] == [LEFT] * 3
    assert [call.response for call in calls] == [first, None, None]
    assert [call.usage.output_tokens for call in calls] == [None] * 3
    assert calls[0].usage.input_tokens


def test_a_stream_that_tells_of_an_error_is_a_failure(calls: list[Call]) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    text = f"event: error\ndata: {json.dumps(error)}\n\n"
    sse = {"content-type": "text/event-stream"}
    broken = canned(
        Anthropic, lambda request: http.Response(200, text=text, headers=sse), api_key="stub"
    )
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(flowledger.wrap(broken).messages.create(**STREAMED))
    [call] = calls
    assert call.outcome.error_type == type(caught.value).__name__
    assert "Overloaded" in (call.outcome.message or "")


def test_a_retried_call_counts_once(stub: StubLLM, client: Anthropic, calls: list[Call]) -> None:
    before = len(stub.requests)
    wishes = steer(status=429, fail_times=2, key="anthropic retry", retry_after=0.001)
    client.with_options(max_retries=3).messages.create(**ASKED, **wishes)
    assert len(stub.requests) - before == 3
    assert [call.outcome.success for call in calls] == [True]


def test_an_error_is_recorded_with_its_status(client: Anthropic, calls: list[Call]) -> None:
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(**ASKED, **steer(status=429))
    [call] = calls
    assert call.params == {"error_status": 429}
    assert call.outcome.message == str(caught.value)
    assert call.prompt == ASK


def test_a_cancelled_call_is_a_failure(stub: StubLLM, calls: list[Call]) -> None:
    async def cancelled() -> None:
        async with make(AsyncAnthropic, stub.root) as made:
            create = flowledger.wrap(made).messages.create
            expected = len(stub.requests) + 1
            task = asyncio.create_task(create(**ASKED, **steer(mode="hang")))
            await arrived(stub, expected)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    assert [call.outcome.error_type for call in calls] == ["CancelledError"]


def test_counting_tokens_and_listing_models_pass_unrecorded(
    client: Anthropic, calls: list[Call]
) -> None:
    assert client.messages.count_tokens(model=MODEL, messages=ASK).input_tokens > 0
    client.models.list()
    assert calls == []


def test_without_a_key_the_packages_own_error_is_raised(
    stub: StubLLM, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    views = [
        seen(flowledger.wrap(one) if wrapped else one, CREATE, **ASKED)
        for wrapped, one in enumerate(make(Anthropic, stub.root, api_key=None) for _ in range(2))
    ]
    assert views[0] == views[1]
    assert [call.outcome.error_type for call in calls] == [views[0][-1][0].__name__]


def test_no_key_reaches_a_record(stub: StubLLM, calls: list[Call]) -> None:
    wrapped = flowledger.wrap(make(Anthropic, stub.root, api_key="sk-very-secret\n"))
    with pytest.raises(anthropic.APIConnectionError):
        wrapped.messages.create(**ASKED)
    assert len(calls) == 1
    assert b"secret" not in to_json(calls[0])


def test_raw_responses_are_left_alone_and_recorded(client: Anthropic, calls: list[Call]) -> None:
    raw = client.messages.with_raw_response.create(**ASKED)
    assert [call.outcome.success for call in calls] == [True]  # while `raw` is still in use
    answer = raw.parse()
    assert isinstance(answer, Message)
    streamed = client.messages.with_raw_response.create(**STREAMED).parse()
    list(streamed)
    with client.messages.with_streaming_response.create(**ASKED) as response:
        response.read()
    [block] = answer.content
    assert block.type == "text"
    assert [call.response for call in calls] == [block.text] * 3


def test_copies_of_a_client_are_recorded_and_wrapping_twice_is_harmless(
    stub: StubLLM, calls: list[Call]
) -> None:
    with make(Anthropic, stub.root) as made:
        wrapped = flowledger.wrap(flowledger.wrap(made))
        for other in (wrapped, wrapped.copy(), wrapped.with_options(timeout=5)):
            assert type(other) is Anthropic
            other.messages.create(**ASKED)
    assert len(calls) == 3


@pytest.mark.skipif(not hasattr(Anthropic, "completions"), reason="anthropic 2 has none")
def test_the_older_text_completions_are_recorded(calls: list[Call]) -> None:
    answer = {"type": "completion", "id": "c", "completion": "Yes.", "stop_reason": "stop_sequence"}
    event = f"event: completion\ndata: {json.dumps({**answer, 'model': MODEL})}\n\n"

    def old(request: Any) -> Any:
        if json.loads(request.content).get("stream"):
            return http.Response(200, text=event, headers={"content-type": "text/event-stream"})
        return http.Response(200, json={**answer, "model": MODEL})

    create = flowledger.wrap(canned(Anthropic, old, api_key="stub")).completions.create
    asked: Any = {"model": MODEL, "prompt": "Well?", "max_tokens_to_sample": 5}
    create(**asked)
    list(create(**asked, stream=True))
    for call in calls:
        assert [call.operation, call.kind, call.prompt] == ["complete", "completion", "Well?"]
        assert [call.response, call.params] == ["Yes.", {"finish_reason": "stop_sequence"}]
    assert len(calls) == 2


MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Yes."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 2},
}


@pytest.mark.parametrize(
    ("provider", "cls", "model", "options"),
    [
        ("anthropic", Anthropic, MODEL, {"api_key": "stub"}),
        (
            "gateway.example",
            Anthropic,
            MODEL,
            {"api_key": "stub", "base_url": "https://gateway.example"},
        ),
        (
            "aws.bedrock",
            AnthropicBedrock,
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            {"aws_access_key": "a", "aws_secret_key": "b", "aws_region": "us-east-1"},
        ),
        (
            "gcp.vertex_ai",
            type("Own", (AnthropicVertex,), {}),
            "claude-sonnet-4-5@20250929",
            {"access_token": "a", "project_id": "p", "region": "us-east5"},
        ),
    ],
    ids=["own", "gateway", "bedrock", "vertex"],
)
def test_the_provider_is_who_answers(
    calls: list[Call], provider: str, cls: Any, model: str, options: dict[str, Any]
) -> None:
    client = flowledger.wrap(
        canned(cls, lambda request: http.Response(200, json=MESSAGE), **options)
    )
    assert client.messages.create(**{**ASKED, "model": model}).content
    [call] = calls
    assert [call.provider, call.model_asked, call.response] == [provider, model, "Yes."]
    assert price(call) is not None


EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Yes."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]


def framed(event: dict[str, Any]) -> bytes:
    """An event as Bedrock sends it: lengths, checksum, headers, payload, checksum.

    Source: Amazon Transcribe Developer Guide, "Event stream encoding".
    """
    inner = base64.b64encode(json.dumps(event).encode()).decode()
    payload = json.dumps({"bytes": inner}).encode()
    told = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        bytes([len(name)])
        + name.encode()
        + b"\x07"
        + struct.pack(">H", len(value))
        + value.encode()
        for name, value in told.items()
    )
    start = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = start + struct.pack(">I", zlib.crc32(start)) + headers + payload
    return body + struct.pack(">I", zlib.crc32(body))


def test_a_stream_of_bedrock_is_recorded(calls: list[Call]) -> None:
    answer = http.Response(
        200,
        content=b"".join(map(framed, EVENTS)),
        headers={"content-type": "application/vnd.amazon.eventstream"},
    )
    keys = {"aws_access_key": "a", "aws_secret_key": "b", "aws_region": "us-east-1"}
    client = flowledger.wrap(canned(AnthropicBedrock, lambda request: answer, **keys))
    name = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert len(list(client.messages.create(**{**STREAMED, "model": name}))) == len(EVENTS)
    [call] = calls
    assert [call.provider, call.response, call.params] == [
        "aws.bedrock",
        "Yes.",
        {"finish_reason": "end_turn"},
    ]
    assert [call.usage.input_tokens, call.usage.output_tokens] == [7, 2]


def test_a_fault_of_ours_leaves_the_call_alone(
    client: Anthropic, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(answer: Any) -> Any:
        raise ValueError("ours")

    broken = anthropic_reading.MESSAGES._replace(read=fails, results=fails)
    monkeypatch.setitem(anthropic_reading.ENDPOINTS, "v1/messages", broken)
    assert client.messages.create(**ASKED).content
    assert list(client.messages.create(**STREAMED))
    assert [call.notes for call in calls] == [["the answer could not be read"]] * 2


def test_chat_asks_and_is_recorded(
    stub: StubLLM, calls: list[Call], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", stub.root)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "stub")
    monkeypatch.setenv("FLOWLEDGER_HOME", str(tmp_path))
    asked: dict[str, Any] = {"message": "Why?", "model": f"anthropic/{MODEL}", "temperature": 0.2}
    text = flowledger.chat(**asked)
    pieces = list(flowledger.chat(**asked, stream=True))
    assert text == "".join(pieces)
    assert [text] * 2 == [call.response for call in calls]
    assert [0.2] * 2 == [request.json["temperature"] for request in stub.requests[-2:]]
    assert [0.2] * 2 == [call.settings["temperature"] for call in calls]
