"""The calls of a batch are recorded when their results are fetched, once, at batch prices."""

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

import flowledger
from flowledger.integrations import anthropic_batches, openai_batches, sdk_batches
from flowledger.pricing import price
from flowledger.records import Call
from flowledger.testing import capture_calls
from flowledger.testing.llm import StubLLM
from tests import anthropic_clients
from tests.openai_clients import ASK, MODEL, TOOL, make

UNASKED = ["what was asked is not known: another process sent the batch"]
BODY: dict[str, Any] = {"model": MODEL, "messages": ASK, "temperature": 0.5}
BODIES: dict[str, dict[str, Any]] = {
    "plain": BODY,
    "tools": {**BODY, "tools": [TOOL]},
    "wrong": {**BODY, "temperature": 5},
}
WAYS = ("bytes", "file", "named")


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


@pytest.fixture
def calls() -> Iterator[list[Call]]:
    with capture_calls() as recorded:
        yield recorded


@pytest.fixture
def client(stub: StubLLM) -> Iterator[OpenAI]:
    with make(OpenAI, stub.url) as made:
        yield flowledger.wrap(made)


@pytest.fixture
def claude(stub: StubLLM) -> Iterator[Anthropic]:
    with anthropic_clients.make(Anthropic, stub.root) as made:
        yield flowledger.wrap(made)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process would know of the batches of this one."""
    monkeypatch.setattr(sdk_batches, "_memory", sdk_batches._Memory())
    monkeypatch.setattr(openai_batches, "_batches", openai_batches._Batches())
    monkeypatch.setattr(anthropic_batches, "_batches", anthropic_batches._Batches())


def lines(bodies: dict[str, dict[str, Any]], url: str = "/v1/chat/completions") -> bytes:
    asked = (
        {"custom_id": name, "method": "POST", "url": url, "body": body}
        for name, body in bodies.items()
    )
    return b"\n".join(json.dumps(one).encode() for one in asked) + b"\n"


def send(client: OpenAI, content: Any, url: Any = "/v1/chat/completions") -> Any:
    file = client.files.create(file=content, purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h")
    return client.batches.retrieve(made.id)


def by_name(calls: list[Call]) -> dict[str, Call]:
    return {call.params["custom_id"]: call for call in calls}


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_of_openai_is_recorded_with_what_was_asked(
    client: OpenAI, calls: list[Call], way: str
) -> None:
    content = lines(BODIES)
    upload = {"bytes": content, "file": io.BytesIO(content), "named": ("in.jsonl", content)}[way]
    with flowledger.context(user_id="ana", feature="nightly"):
        batch = send(client, upload)
    assert calls == []
    for _ in range(2):
        assert client.files.content(batch.output_file_id).content
        assert client.files.content(batch.error_file_id).content
    found = by_name(calls)
    assert sorted(found) == sorted(BODIES)
    assert len(calls) == 3
    for call in calls:
        assert [call.operation, call.provider, call.kind] == ["chat.completions", "openai", "chat"]
        assert [call.actor.user_id, call.feature, call.prompt] == ["ana", "nightly", ASK]
        assert [call.params["batch_id"], call.settings["processing"]] == [batch.id, "batch"]
        assert [call.start_ns, call.notes] == [batch.created_at * 10**9, []]
    assert found["plain"].settings["temperature"] == 0.5
    assert found["plain"].response
    assert found["tools"].tool_calls[0].name == "get_weather"
    assert found["wrong"].outcome.error_type == "integer_above_max_value"
    assert found["plain"].duration_ns == 60 * 10**9


def test_a_call_of_a_batch_costs_half(client: OpenAI, calls: list[Call]) -> None:
    client.chat.completions.create(**BODY)
    batch = send(client, lines({"a": BODY}))
    client.files.content(batch.output_file_id)
    plain, batched = (price(call) for call in calls)
    assert plain is not None
    assert batched is not None
    assert batched.total == pytest.approx(plain.total / 2)


def test_embeddings_and_responses_come_in_batches_too(client: OpenAI, calls: list[Call]) -> None:
    for url, body in (
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["a", "b"]}),
        ("/v1/responses", {"model": MODEL, "input": "Hi"}),
    ):
        batch = send(client, lines({"a": body}, url), url)
        client.files.content(batch.output_file_id)
    assert [call.operation for call in calls] == ["embeddings", "responses"]
    assert calls[0].response == {"count": 2, "dimensions": 1536}
    assert all(call.usage.total_tokens for call in calls)


def test_another_process_records_the_same_ids_without_the_prompts(
    client: OpenAI, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = send(client, lines({"a": BODY}))
    client.files.content(batch.output_file_id)
    forget(monkeypatch)
    client.files.content(batch.output_file_id)
    first, again = calls
    assert first.id == again.id
    assert [again.prompt, again.notes, again.response] == [None, UNASKED, first.response]
    assert [again.operation, again.model] == ["chat.completions", MODEL]


def test_files_that_are_no_results_are_left_alone(client: OpenAI, calls: list[Call]) -> None:
    for content in (b"", b"not json", b'{"id": "batch_req_1"', lines(BODIES)):
        file = client.files.create(file=("x.jsonl", content), purpose="batch")
        assert client.files.content(file.id).content == content
    file_like = io.BytesIO(b"0123456789")
    file_like.seek(4)
    client.files.create(file=file_like, purpose="assistants")
    assert calls == []


def test_an_asynchronous_client_records_a_batch(stub: StubLLM, calls: list[Call]) -> None:
    async def fetch() -> None:
        async with make(AsyncOpenAI, stub.url) as made:
            client = flowledger.wrap(made)
            file = await client.files.create(file=lines({"a": BODY}), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            await client.files.content(batch.output_file_id)
        async with anthropic_clients.make(AsyncAnthropic, stub.root) as made:
            claude = flowledger.wrap(made)
            asked: Any = [{"custom_id": "b", "params": anthropic_clients.ASKED}]
            sent = await claude.messages.batches.create(requests=asked)
            assert [r.custom_id async for r in await claude.messages.batches.results(sent.id)]

    asyncio.run(fetch())
    assert [call.params["custom_id"] for call in calls] == ["a", "b"]
    assert all(call.prompt for call in calls)


def test_a_batch_of_anthropic_is_recorded_as_its_results_are_read(
    claude: Anthropic, calls: list[Call]
) -> None:
    good, bad = anthropic_clients.ASKED, {**anthropic_clients.ASKED, "max_tokens": 0}
    asked: Any = [{"custom_id": "good", "params": good}, {"custom_id": "bad", "params": bad}]
    with flowledger.context(user_id="ana"):
        batch = claude.messages.batches.create(requests=asked)
    results = claude.messages.batches.results(batch.id)
    assert calls == []
    first = next(results)
    assert [call.params["custom_id"] for call in calls] == [first.custom_id]
    list(results)
    list(claude.messages.batches.results(batch.id))
    found = by_name(calls)
    assert len(calls) == 2
    for call in calls:
        assert [call.operation, call.provider, call.prompt] == [
            "messages",
            "anthropic",
            anthropic_clients.ASK,
        ]
        assert [call.actor.user_id, call.params["batch_id"]] == ["ana", batch.id]
        assert call.settings["processing"] == "batch"
    assert found["good"].response
    assert found["good"].usage.total_tokens
    assert found["bad"].outcome.error_type == "invalid_request_error"
    claude.messages.create(**good)
    plain, batched = price(calls[-1]), price(found["good"])
    assert plain is not None
    assert batched is not None
    assert batched.total == pytest.approx(plain.total / 2)


def test_another_process_records_anthropics_results_once_and_without_prompts(
    claude: Anthropic, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Any = [{"custom_id": "a", "params": anthropic_clients.ASKED}]
    batch = claude.messages.batches.create(requests=asked)
    list(claude.messages.batches.results(batch.id))
    forget(monkeypatch)
    list(claude.messages.batches.results(batch.id))
    first, again = calls
    assert [first.id, first.start_ns] == [again.id, again.start_ns]
    assert [again.prompt, again.notes] == [None, UNASKED]


@pytest.mark.parametrize(
    ("module", "name", "most"),
    [
        (sdk_batches, "MOST_BYTES", 10),
        (sdk_batches, "MOST_SENT", 0),
        (openai_batches, "MOST_BYTES", 10),
    ],
)
def test_what_is_remembered_of_batches_is_bounded(
    client: OpenAI,
    calls: list[Call],
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    most: int,
) -> None:
    forget(monkeypatch)
    monkeypatch.setattr(module, name, most)
    batch = send(client, lines({"a": BODY}))
    client.files.content(batch.output_file_id)
    assert [call.notes for call in calls] == [UNASKED]
