"""The stub LLM server answers the real openai client as OpenAI would."""

import asyncio
import base64
import io
import json
import math
import wave
from collections.abc import Iterator
from enum import Enum
from operator import mul
from typing import Any, cast

import pytest
import urllib3
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field
from splintr import Tokenizer

from flowledger.testing import llm
from flowledger.testing.llm import StubLLM
from flowledger.testing.stub.steering import Steer

MODEL = "gpt-4o-mini"
ASK: list[Any] = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "What does the café in Ávila cost? 价格?", "name": "ana"},
]
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 3},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
FLAT_TOOL: Any = {"type": "function", "name": "get_weather", "parameters": WEATHER}
_encode = Tokenizer.from_pretrained("o200k_base").encode_ordinary


def count(text: str | None) -> int:
    """Counts apart from the code under test."""
    return len(_encode(text or ""))


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


@pytest.fixture(scope="module")
def client(stub: StubLLM) -> Iterator[OpenAI]:
    with OpenAI(base_url=stub.url, api_key="stub", max_retries=0, timeout=20) as made:
        yield made


def fits_weather(arguments: str) -> bool:
    values = json.loads(arguments)
    return bool(
        values.keys() == {"city", "unit", "days"}
        and len(values["city"]) >= 3
        and values["unit"] in ("celsius", "fahrenheit")
        and values["days"] in range(1, 8)
    )


def test_chat_usage_is_what_the_texts_count(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ASK)
    text = answer.choices[0].message.content
    prompt = 3 + sum(3 + count(m["role"]) + count(m["content"]) for m in ASK) + 1 + count("ana")
    assert answer.usage is not None
    assert (prompt, count(text)) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert prompt + count(text) == answer.usage.total_tokens
    assert answer.choices[0].finish_reason == "stop"
    assert text


def test_the_same_request_gets_the_same_answer_and_another_request_another(client: OpenAI) -> None:
    def ask(text: str) -> str:
        messages: list[Any] = [{"role": "user", "content": text}]
        return client.chat.completions.create(model=MODEL, messages=messages).model_dump_json()

    assert ask("one") == ask("one")
    assert ask("one") != ask("two")


@pytest.mark.parametrize("tokens", [0, 1, 2, 17, 1000])
def test_an_answer_is_as_long_as_the_caller_asked(client: OpenAI, tokens: int) -> None:
    marked = client.chat.completions.create(model=f"{MODEL}?tokens={tokens}", messages=ASK)
    headers = {"x-stub-tokens": str(tokens)}
    told = client.chat.completions.create(model=MODEL, messages=ASK, extra_headers=headers)
    assert told.usage is not None
    assert (tokens, tokens) == (
        told.usage.completion_tokens,
        count(told.choices[0].message.content),
    )
    assert marked.model_dump() == told.model_dump()
    assert marked.model == MODEL


def test_reasoning_and_cached_tokens_are_reported_when_asked_for(client: OpenAI) -> None:
    model = f"{MODEL}?tokens=5&reasoning-tokens=100&cached-tokens=9"
    usage = client.chat.completions.create(model=model, messages=ASK).usage
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.completion_tokens, usage.completion_tokens_details.reasoning_tokens) == (105, 100)
    assert usage.prompt_tokens_details.cached_tokens == 9


def test_an_answer_over_the_limit_is_cut_and_says_so(client: OpenAI) -> None:
    model = f"{MODEL}?tokens=50"
    answer = client.chat.completions.create(model=model, messages=ASK, max_completion_tokens=7)
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (7, "length")


def test_several_choices_are_different_and_all_counted(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ASK, n=3)
    texts = [choice.message.content for choice in answer.choices]
    assert answer.usage is not None
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert sum(map(count, texts)) == answer.usage.completion_tokens


@pytest.mark.parametrize("n", [1, 3])
def test_a_stream_says_what_the_plain_answer_says(client: OpenAI, n: int) -> None:
    plain = client.chat.completions.create(model=MODEL, messages=ASK, n=n)
    texts = [""] * n
    stream = client.chat.completions.create(model=MODEL, messages=ASK, n=n, stream=True)
    chunks = list(stream)
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] += choice.delta.content or ""
    assert [choice.message.content for choice in plain.choices] == texts
    assert ["stop"] * n == [c.finish_reason for k in chunks for c in k.choices if c.finish_reason]
    assert not any(chunk.usage for chunk in chunks)


def test_a_stream_ends_with_its_usage_when_asked(client: OpenAI) -> None:
    plain = client.chat.completions.create(model=MODEL, messages=ASK)
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(
        model=MODEL, messages=ASK, stream=True, stream_options=options
    )
    *others, last = stream
    assert plain.usage == last.usage
    assert last.choices == []
    assert not any(chunk.usage for chunk in others)


def test_the_async_client_gets_the_same_answers(stub: StubLLM, client: OpenAI) -> None:
    async def ask() -> tuple[str | None, str]:
        async with AsyncOpenAI(base_url=stub.url, api_key="stub", max_retries=0) as aclient:
            plain = await aclient.chat.completions.create(model=MODEL, messages=ASK)
            stream = await aclient.chat.completions.create(model=MODEL, messages=ASK, stream=True)
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return plain.choices[0].message.content, "".join(parts)

    expected = client.chat.completions.create(model=MODEL, messages=ASK).choices[0].message.content
    assert asyncio.run(ask()) == (expected, expected)


def test_a_tool_is_called_with_arguments_that_fit_it(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ASK, tools=[TOOL])
    [call] = cast("list[Any]", answer.choices[0].message.tool_calls)
    assert (answer.choices[0].finish_reason, call.function.name) == ("tool_calls", "get_weather")
    assert fits_weather(call.function.arguments)
    assert answer.usage is not None
    written = count("get_weather") + count(call.function.arguments)
    assert written == answer.usage.completion_tokens


def test_a_streamed_tool_call_is_the_plain_one(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ASK, tools=[TOOL])
    [call] = cast("list[Any]", answer.choices[0].message.tool_calls)
    stream = client.chat.completions.create(model=MODEL, messages=ASK, tools=[TOOL], stream=True)
    deltas = [chunk.choices[0].delta.tool_calls or [] for chunk in stream]
    parts = [cast("Any", delta[0]) for delta in deltas if delta]
    assert (call.id, call.function.name) == (parts[0].id, parts[0].function.name)
    assert call.function.arguments == "".join(part.function.arguments for part in parts)


def test_the_tool_asked_for_by_name_is_called(client: OpenAI) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    tools: Any = [other, TOOL]
    answer = client.chat.completions.create(
        model=MODEL, messages=ASK, tools=tools, tool_choice=choice
    )
    [call] = cast("list[Any]", answer.choices[0].message.tool_calls)
    assert call.function.name == "get_weather"


def test_no_tool_is_called_after_its_result_or_when_forbidden(client: OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    told: list[Any] = [
        *ASK,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    after = client.chat.completions.create(model=MODEL, messages=told, tools=[TOOL])
    never = client.chat.completions.create(
        model=MODEL, messages=ASK, tools=[TOOL], tool_choice="none"
    )
    for message in (after.choices[0].message, never.choices[0].message):
        assert message.content
        assert message.tool_calls is None


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Finding(BaseModel):
    title: str
    mood: Mood
    score: float = Field(ge=0.2, le=0.9)
    code: str = Field(pattern="^[A-Z]{3}-[0-9]{2}$")
    tags: list[str] = Field(min_length=3, max_length=4)
    parent: "Finding | None" = None


def test_structured_output_parses_into_the_callers_model(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Finding)
    found = answer.choices[0].message.parsed
    assert isinstance(found, Finding)
    assert answer.usage is not None
    assert count(answer.choices[0].message.content) == answer.usage.completion_tokens


def test_json_mode_answers_an_object(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=ASK, response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_a_picture_in_a_message_counts_as_openai_says(client: OpenAI) -> None:
    def prompt_tokens(detail: str | None) -> int:
        image = {"url": "data:image/png;base64,AAAA"} | ({"detail": detail} if detail else {})
        parts = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": image}]
        messages: list[Any] = [{"role": "user", "content": parts}]
        usage = client.chat.completions.create(model=MODEL, messages=messages).usage
        return usage.prompt_tokens if usage else 0

    text = 3 + 3 + count("user") + count("See")
    assert [text + 85, text + 765] == [prompt_tokens("low"), prompt_tokens(None)]


def test_text_completions_have_usage_and_stream(client: OpenAI) -> None:
    model = "gpt-3.5-turbo-instruct?tokens=9"
    plain = client.completions.create(model=model, prompt=["Once", "Twice"])
    stream = client.completions.create(model=model, prompt="Once", stream=True)
    assert plain.usage is not None
    assert (len(plain.choices), plain.usage.completion_tokens) == (2, 18)
    assert count("Once") + count("Twice") == plain.usage.prompt_tokens
    assert count("".join(chunk.choices[0].text for chunk in stream)) == 9


def test_embeddings_are_the_same_in_both_encodings(stub: StubLLM, client: OpenAI) -> None:
    text = "the price of a room"
    coded = client.embeddings.create(model="text-embedding-3-small", input=[text, "b"])
    plain = client.embeddings.create(
        model="text-embedding-3-small", input=[text, "b"], encoding_format="float"
    )
    assert [len(one.embedding) for one in plain.data] == [1536, 1536]
    assert coded.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert count(text) + count("b") == plain.usage.prompt_tokens == plain.usage.total_tokens
    sent = [request.json["encoding_format"] for request in stub.requests[-2:]]
    assert sent == ["base64", "float"]


def test_embeddings_of_alike_texts_are_near_each_other(client: OpenAI) -> None:
    texts = ["the price of a room", "what is the price of the room", "my dog sleeps"]
    answer = client.embeddings.create(model="text-embedding-3-large", input=texts, dimensions=256)
    first, near, far = (one.embedding for one in answer.data)
    assert [len(one.embedding) for one in answer.data] == [256] * 3
    assert math.hypot(*first) == pytest.approx(1.0, abs=1e-5)
    assert sum(map(mul, first, near)) > sum(map(mul, first, far)) + 0.2


def test_embeddings_take_tokens(client: OpenAI) -> None:
    answer = client.embeddings.create(model="text-embedding-3-small", input=[[1, 2, 3], [4]])
    assert (len(answer.data), answer.usage.prompt_tokens) == (2, 4)


def test_images_are_pngs_and_their_usage_is_gpt_image_1s(client: OpenAI) -> None:
    answer = client.images.generate(
        model="gpt-image-1", prompt="a red cat", n=2, size="1024x1536", quality="low"
    )
    assert answer.data is not None
    assert answer.usage is not None
    pictures = [base64.b64decode(image.b64_json or "") for image in answer.data]
    assert [picture[:8] for picture in pictures] == [b"\x89PNG\r\n\x1a\n"] * 2
    assert (answer.size, answer.quality) == ("1024x1536", "low")
    assert (count("a red cat"), 2 * 408) == (answer.usage.input_tokens, answer.usage.output_tokens)


def test_dall_e_has_an_address_and_no_usage(client: OpenAI) -> None:
    answer = client.images.generate(model="dall-e-3", prompt="a red cat")
    assert answer.data is not None
    assert (answer.data[0].url or "").startswith("data:image/png;base64,")
    assert answer.usage is None


def test_a_response_has_text_and_usage(client: OpenAI) -> None:
    answer = client.responses.create(model=MODEL, instructions="Be brief.", input="Hello there")
    assert answer.usage is not None
    system, user = count("system") + count("Be brief."), count("user") + count("Hello there")
    assert 3 + 3 + system + 3 + user == answer.usage.input_tokens
    assert count(answer.output_text) == answer.usage.output_tokens
    assert (answer.status, answer.usage.output_tokens_details.reasoning_tokens) == ("completed", 0)


def test_a_streamed_response_says_what_the_plain_one_says(client: OpenAI) -> None:
    plain = client.responses.create(model=MODEL, input="Hello")
    events: list[Any] = list(client.responses.create(model=MODEL, input="Hello", stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert plain.output_text == "".join(deltas)
    assert list(range(len(events))) == [event.sequence_number for event in events]
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert plain.model_dump() == events[-1].response.model_dump()


def test_a_response_over_the_limit_is_incomplete(client: OpenAI) -> None:
    model = f"{MODEL}?tokens=90"
    with client.responses.stream(model=model, input="Hello", max_output_tokens=20) as stream:
        events: list[Any] = list(stream)
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.usage.output_tokens == 20


@pytest.mark.parametrize("streamed", [False, True])
def test_a_response_calls_a_tool_until_it_has_the_result(client: OpenAI, streamed: bool) -> None:
    first: Any = client.responses.create(model=MODEL, input="Hello", tools=[FLAT_TOOL])
    if streamed:
        stream = client.responses.create(model=MODEL, input="Hello", tools=[FLAT_TOOL], stream=True)
        first = cast("Any", list(stream)[-1]).response
    [call] = first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    items: Any = [{"role": "user", "content": "Hello"}, call.model_dump(), result]
    second = client.responses.create(model=MODEL, input=items, tools=[FLAT_TOOL])
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert fits_weather(call.arguments)
    assert second.output_text


def test_a_response_parses_into_the_callers_model(client: OpenAI) -> None:
    answer = client.responses.parse(model=MODEL, input="Hello", text_format=Finding)
    assert isinstance(answer.output_parsed, Finding)


def two_seconds() -> io.BytesIO:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\r\n--\0\0" * 5333 + b"\0\0")
    file.seek(0)
    file.name = "two.wav"
    return file


def test_a_transcription_tells_the_length_of_the_audio(client: OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        model="whisper-1", file=two_seconds(), response_format="verbose_json", temperature=0.2
    )
    assert answer.duration == 2.0
    assert answer.usage is not None
    assert (answer.text != "", answer.usage.seconds) == (True, 2)


def test_a_transcription_by_a_token_model_counts_tokens(client: OpenAI) -> None:
    answer: Any = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=two_seconds())
    assert answer.usage.type == "tokens"
    assert count(answer.text) == answer.usage.output_tokens


def test_models_are_listed(client: OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve("org/own-model").id == "org/own-model"


def test_health_counts_requests(stub: StubLLM, client: OpenAI) -> None:
    url = stub.url.removesuffix("/v1") + "/health"
    before = urllib3.request("GET", url).json()["requests"]
    client.models.list()
    assert urllib3.request("GET", url).json() == {"status": "ok", "requests": before + 1}


def test_requests_are_kept_without_the_callers_key() -> None:
    with StubLLM(keep=2) as stub, OpenAI(base_url=stub.url, api_key="sk-secret") as client:
        for text in ("one", "two", "three"):
            client.responses.create(model=MODEL, input=text, extra_headers={"X-Own": "yes"})
        last = stub.requests[-1]
    assert [request.json["input"] for request in stub.requests] == ["two", "three"]
    assert (last.path, last.headers["x-own"]) == ("/v1/responses", "yes")
    assert "sk-secret" not in str(last)


def test_every_setting_is_explained() -> None:
    names = {name.replace("_", "-") for name in Steer.__struct_fields__}
    assert {name for name in names if f"`x-stub-{name}: " in (llm.__doc__ or "")} == names
