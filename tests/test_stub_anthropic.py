"""The stub LLM server answers the real anthropic client as Anthropic would."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from anthropic.types.shared import ErrorResponse
from openai import OpenAI
from openai.types import Batch, FileObject
from pydantic import BaseModel, TypeAdapter

from flowledger.testing.llm import StubLLM
from tests.anthropic_clients import ASKED, MODEL, TOOL, Weather, make
from tests.openai_clients import steer
from tests.raw_http import request

THINKS: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
SHAPES: dict[str, dict[str, Any]] = {
    "text": ASKED,
    "thinking": {**ASKED, **THINKS},
    "tools": {**ASKED, "tools": [TOOL]},
    "forced tool": {
        **ASKED,
        "tools": [{**TOOL, "name": "other"}, TOOL],
        "tool_choice": {"type": "tool", "name": "get_weather"},
    },
}


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


@pytest.fixture(scope="module")
def client(stub: StubLLM) -> Iterator[Anthropic]:
    with make(Anthropic, stub.root) as made:
        yield made


def fits(cls: Any, value: Any) -> None:
    """The value has what the package's type demands, and nothing the package does not know."""
    found = TypeAdapter(cls).validate_python(value)
    models = [found] if isinstance(found, BaseModel) else []
    while models:
        model = models.pop()
        assert not model.model_extra, f"{type(model).__name__} has no {model.model_extra}"
        for name in type(model).model_fields:
            held = getattr(model, name)
            items = held if isinstance(held, list) else [held]
            models += [item for item in items if isinstance(item, BaseModel)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_message_and_its_events_are_of_the_packages_types(stub: StubLLM, shape: str) -> None:
    fits(Message, json.loads(request(stub.root, "/v1/messages", SHAPES[shape])[1]))
    _, text = request(stub.root, "/v1/messages", {**SHAPES[shape], "stream": True})
    events = [event.splitlines() for event in text.split("\n\n") if event]
    for name, data in events:
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        if value["type"] != "ping":
            fits(RawMessageStreamEvent, value)
    assert [name for name, _ in events][:2] == [
        "event: message_start",
        "event: content_block_start",
    ]
    assert [name for name, _ in events][-2:] == ["event: message_delta", "event: message_stop"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stream_adds_up_to_the_plain_message(client: Anthropic, shape: str) -> None:
    plain = client.messages.create(**SHAPES[shape])
    with client.messages.stream(**SHAPES[shape]) as stream:
        final = stream.get_final_message()
    assert [block.model_dump(exclude={"parsed_output"}) for block in plain.content] == [
        block.model_dump(exclude={"parsed_output"}) for block in final.content
    ]
    assert (plain.stop_reason, plain.usage) == (final.stop_reason, final.usage)


def test_what_a_tool_is_asked_fits_it_and_its_result_ends_the_asking(client: Anthropic) -> None:
    asked = client.messages.create(**SHAPES["forced tool"])
    [block] = asked.content
    assert block.type == "tool_use"
    assert [block.name, asked.stop_reason] == ["get_weather", "tool_use"]
    assert Weather.model_validate(block.input)
    told = {"type": "tool_result", "tool_use_id": block.id, "content": "18"}
    talk: Any = [*ASKED["messages"], {"role": "assistant", "content": asked.content}]
    talk.append({"role": "user", "content": [told]})
    answer = client.messages.create(model=MODEL, max_tokens=99, messages=talk, tools=[TOOL])
    assert answer.content[0].type == "text"


def test_an_answer_in_a_form_fits_it(client: Anthropic) -> None:
    answer = client.messages.parse(**ASKED, output_format=Weather)
    assert isinstance(answer.parsed_output, Weather)


def test_the_cache_is_counted_apart_from_the_input(client: Anthropic) -> None:
    plain = client.messages.create(**ASKED).usage
    cached = client.messages.create(**ASKED, **steer(cached_tokens=4, cache_write_tokens=3)).usage
    assert [cached.cache_read_input_tokens, cached.cache_creation_input_tokens] == [4, 3]
    assert cached.input_tokens == plain.input_tokens - 7
    counted = client.messages.count_tokens(model=MODEL, messages=ASKED["messages"])
    assert isinstance(counted, MessageTokensCount)
    assert counted.input_tokens == plain.input_tokens


def test_a_limit_cuts_the_answer(client: Anthropic) -> None:
    answer = client.messages.create(**{**ASKED, "max_tokens": 3}, **steer(tokens=40))
    assert [answer.stop_reason, answer.usage.output_tokens] == ["max_tokens", 3]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.APIStatusError),
    ],
)
def test_an_error_has_the_form_and_the_type_of_its_status(
    stub: StubLLM, client: Anthropic, status: int, error: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(error):
        client.messages.create(**ASKED, **steer(status=status))
    code, text = request(stub.root, "/v1/messages", {**ASKED, "model": f"x?status={status}"})
    assert code == status
    fits(ErrorResponse, json.loads(text))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"model": None}, "model: Field required"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens: must be"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "Unexpected role"),
        ({"messages": ["x"]}, "Unexpected role"),
        ({"temperature": 2}, "temperature: range: 0..1"),
        ({"tools": [{}]}, "tools.0.name: Field required"),
    ],
    ids=str,
)
def test_a_wrong_request_is_refused_with_what_is_wrong(
    stub: StubLLM, wrong: dict[str, Any], told: str
) -> None:
    code, text = request(stub.root, "/v1/messages", {**ASKED, **wrong})
    error = json.loads(text)["error"]
    assert (code, error["type"]) == (400, "invalid_request_error")
    assert told in error["message"]


def test_a_batch_of_messages_is_of_the_packages_types(client: Anthropic) -> None:
    requests: Any = [
        {"custom_id": "good", "params": ASKED},
        {"custom_id": "bad", "params": {**ASKED, "max_tokens": 0}},
    ]
    batch = client.messages.batches.create(requests=requests)
    fits(MessageBatch, batch.model_dump())
    assert [batch.request_counts.succeeded, batch.request_counts.errored] == [1, 1]
    lines = list(client.messages.batches.results(batch.id))
    assert [(line.custom_id, line.result.type) for line in lines] == [
        ("good", "succeeded"),
        ("bad", "errored"),
    ]
    for line in lines:
        fits(MessageBatchIndividualResponse, line.model_dump())


def test_a_batch_of_files_is_of_the_packages_types(stub: StubLLM) -> None:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": one}
        for name, one in {"good": body, "bad": {**body, "temperature": 5}}.items()
    ]
    with OpenAI(base_url=stub.url, api_key="stub") as client:
        content = "\n".join(map(json.dumps, lines)).encode()
        file = client.files.create(file=("in.jsonl", content), purpose="batch")
        fits(FileObject, file.model_dump())
        made = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        batch = client.batches.retrieve(made.id)
        fits(Batch, batch.model_dump())
        assert batch.output_file_id
        assert batch.error_file_id
        [good] = map(json.loads, client.files.content(batch.output_file_id).text.splitlines())
        [bad] = map(json.loads, client.files.content(batch.error_file_id).text.splitlines())
        assert client.files.content(file.id).content == content
    assert (good["custom_id"], good["response"]["status_code"]) == ("good", 200)
    assert (bad["custom_id"], bad["response"]["status_code"]) == ("bad", 400)


@pytest.mark.parametrize("path", ["/v1/batches/none", "/v1/messages/batches/none/results"])
def test_a_batch_nobody_sent_is_not_found(stub: StubLLM, path: str) -> None:
    assert request(stub.root, path)[0] == 404
