"""What is recorded of each endpoint that a wrapped client of `openai` calls."""

import io
import wave
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import AzureOpenAI, OpenAI

import flowledger
from flowledger.records import Call, ToolCall, Usage, to_json
from flowledger.testing import capture_calls
from flowledger.testing.llm import StubLLM
from tests.openai_clients import (
    ASK,
    ASKED,
    FLAT_TOOL,
    MODEL,
    RESPONSE,
    TOOL,
    Weather,
    canned,
    events,
    http,
    make,
    steer,
)

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJg"
COMPLETION = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Yes."}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
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


def _always(answer: Any) -> Callable[[Any], Any]:
    return lambda body: answer


def test_a_chat_is_recorded_with_all_it_tells(client: OpenAI, calls: list[Call]) -> None:
    answer = client.chat.completions.create(
        **ASKED, temperature=0.2, max_tokens=9, **steer(cached_tokens=3, reasoning_tokens=4)
    )
    assert answer.usage is not None
    [call] = calls
    assert call.operation == "chat.completions"
    assert call.function == f"{__name__}.test_a_chat_is_recorded_with_all_it_tells"
    assert [call.kind, call.provider, call.model_asked, call.model] == [
        "chat",
        "openai",
        MODEL,
        MODEL,
    ]
    assert call.settings == {"temperature": 0.2, "max_tokens": 9}
    assert call.prompt == ASK
    assert call.response == answer.choices[0].message.content
    assert call.params == {"finish_reason": answer.choices[0].finish_reason}
    assert call.duration_ns > 0
    assert call.first_token_ns is None
    assert call.usage == Usage(
        input_tokens=answer.usage.prompt_tokens,
        output_tokens=answer.usage.completion_tokens,
        cached_input_tokens=3,
        reasoning_tokens=4,
        input_audio_tokens=0,
        output_audio_tokens=0,
    )


def test_every_choice_is_recorded(client: OpenAI, calls: list[Call]) -> None:
    answer = client.chat.completions.create(**ASKED, n=2)
    [call] = calls
    assert call.response == [choice.message.content for choice in answer.choices]


def test_tool_calls_are_recorded_and_tools_by_name(client: OpenAI, calls: list[Call]) -> None:
    answer = client.chat.completions.create(**ASKED, tools=[TOOL])
    [asked] = answer.choices[0].message.tool_calls or []
    assert asked.type == "function"
    [call] = calls
    assert call.settings == {"tools": ["get_weather"]}
    assert call.response is None
    assert call.tool_calls == [
        ToolCall(name="get_weather", id=asked.id, arguments=asked.function.arguments)
    ]


def test_what_tools_returned_is_recorded_with_the_call_that_tells_it(
    client: OpenAI, calls: list[Call]
) -> None:
    answer = client.chat.completions.create(**ASKED, tools=[TOOL])
    message = answer.choices[0].message
    [asked] = message.tool_calls or []
    assert asked.type == "function"
    told: Any = [*ASK, message, {"role": "tool", "tool_call_id": asked.id, "content": "18 C"}]
    client.chat.completions.create(model=MODEL, messages=told, tools=[TOOL])
    later: Any = [*told, {"role": "assistant", "content": "18 C"}, ASK[-1]]
    client.chat.completions.create(model=MODEL, messages=later)
    wanted = ToolCall(name="get_weather", id=asked.id, arguments=asked.function.arguments)
    ran = ToolCall(name=wanted.name, id=wanted.id, arguments=wanted.arguments, result="18 C")
    assert [call.tool_calls for call in calls] == [[wanted], [ran], []]


def test_what_tools_returned_is_recorded_of_responses_too(
    client: OpenAI, calls: list[Call]
) -> None:
    answer: Any = client.responses.create(**RESPONSE, tools=[FLAT_TOOL])
    [item] = answer.output
    output = {"type": "function_call_output", "call_id": item.call_id, "output": "18 C"}
    told: Any = [{"role": "user", "content": "Hi"}, item, output]
    client.responses.create(model=MODEL, input=told, tools=[FLAT_TOOL])
    client.responses.create(model=MODEL, input=[output], previous_response_id=answer.id)  # type: ignore[list-item]
    [_, [ran], [unnamed]] = [call.tool_calls for call in calls]
    assert ran == ToolCall(
        name="get_weather", id=item.call_id, arguments=item.arguments, result="18 C"
    )
    assert unnamed == ToolCall(name="", id=item.call_id, result="18 C")


def test_a_chat_with_a_picture_is_vision_and_holds_no_picture(
    client: OpenAI, calls: list[Call]
) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    content: Any = [{"type": "text", "text": "See"}, picture]
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    [call] = calls
    assert call.kind == "vision"
    assert PNG not in to_json(call).decode()


def test_an_answer_too_short_to_parse_still_counts_its_tokens(
    client: OpenAI, calls: list[Call]
) -> None:
    with pytest.raises(openai.LengthFinishReasonError) as caught:
        client.chat.completions.parse(**ASKED, response_format=Weather, max_tokens=1)
    usage = caught.value.completion.usage
    assert usage is not None
    [call] = calls
    assert call.outcome.error_type == "LengthFinishReasonError"
    assert call.usage.total_tokens == usage.total_tokens


def test_a_response_is_recorded_with_its_instructions(client: OpenAI, calls: list[Call]) -> None:
    answer = client.responses.create(**RESPONSE, max_output_tokens=3)
    [call] = calls
    assert [call.operation, call.kind, call.model] == ["responses", "chat", MODEL]
    assert call.prompt == {"input": "Hi", "instructions": "Be brief."}
    assert call.response == answer.output_text
    assert call.settings == {"max_output_tokens": 3}
    assert call.params == {"finish_reason": "max_output_tokens"}
    assert answer.usage is not None
    assert [call.usage.input_tokens, call.usage.output_tokens] == [
        answer.usage.input_tokens,
        answer.usage.output_tokens,
    ]


def test_a_responses_function_calls_are_recorded(client: OpenAI, calls: list[Call]) -> None:
    answer: Any = client.responses.create(**RESPONSE, tools=[FLAT_TOOL])
    [item] = answer.output
    [call] = calls
    assert call.tool_calls == [
        ToolCall(name="get_weather", id=item.call_id, arguments=item.arguments)
    ]


def test_a_response_that_fails_in_its_stream_is_a_failure(calls: list[Call]) -> None:
    failed = {"status": "failed", "output": [], "error": {"code": "too_long", "message": "No."}}
    ends: list[Any] = [
        {"type": "response.failed", "response": failed},
        {"type": "error", "code": "too_long", "message": "No."},
    ]
    for end in ends:
        client = flowledger.wrap(canned(_always(events(end))))
        list(client.responses.create(**RESPONSE, stream=True))
    assert [(call.outcome.error_type, call.outcome.message) for call in calls] == [
        ("too_long", "No.")
    ] * 2


def test_a_response_that_failed_is_a_failure(calls: list[Call]) -> None:
    error = {"code": "server_error", "message": "Try again."}
    failed = {"id": "r", "object": "response", "status": "failed", "output": [], "error": error}
    flowledger.wrap(canned(_always(failed))).responses.create(**RESPONSE)
    [call] = calls
    assert [call.outcome.success, call.outcome.error_type, call.outcome.message] == [
        False,
        "server_error",
        "Try again.",
    ]


def test_text_completions_are_recorded(client: OpenAI, calls: list[Call]) -> None:
    answer = client.completions.create(model=MODEL, prompt=["a", "b"])
    [call] = calls
    assert [call.operation, call.kind, call.prompt] == ["completions", "completion", ["a", "b"]]
    assert call.response == [choice.text for choice in answer.choices]


def test_embeddings_are_recorded_without_their_vectors(client: OpenAI, calls: list[Call]) -> None:
    embed = client.embeddings.with_raw_response.create
    for create in (client.embeddings.create, embed):
        create(model="text-embedding-3-small", input=["a", "b"], dimensions=256)
    for call in calls:
        assert [call.operation, call.kind, call.prompt] == ["embeddings", "embedding", ["a", "b"]]
        assert call.response == {"count": 2, "dimensions": 256}
        assert call.usage == Usage(input_tokens=2)
    assert len(calls) == 2


def test_images_are_counted_and_not_kept(client: OpenAI, calls: list[Call]) -> None:
    answer = client.images.generate(model="gpt-image-1", prompt="a cat", n=2, quality="auto")
    [call] = calls
    assert [call.operation, call.kind, call.prompt] == ["images.generate", "image", "a cat"]
    assert call.usage.images == 2
    assert answer.usage is not None
    assert call.usage.output_tokens == answer.usage.output_tokens
    assert call.settings == {
        "n": 2,
        "quality": "medium",
        "size": "1024x1024",
        "output_format": "png",
    }
    assert [str(picture["image"]).split(",")[0] for picture in call.response] == ["[image/png"] * 2
    assert all((one.b64_json or "") not in to_json(call).decode() for one in answer.data or ())


def test_a_streamed_image_is_counted_once(calls: list[Call]) -> None:
    usage = {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14}
    name = "image_generation"
    parts: list[Any] = [
        {"type": f"{name}.partial_image", "b64_json": PNG},
        {"type": f"{name}.completed", "b64_json": PNG, "usage": usage, "size": "1024x1024"},
    ]
    images = flowledger.wrap(canned(_always(events(*parts)))).images
    chunks = list(images.generate(prompt="a cat", stream=True, partial_images=1))
    assert [part["type"] for part in parts] == [chunk.type for chunk in chunks]
    [call] = calls
    assert call.usage == Usage(input_tokens=5, output_tokens=9, images=1)
    assert call.settings["size"] == "1024x1024"
    assert len(call.response) == 1
    assert call.first_token_ns is not None


def test_a_streamed_transcript_is_put_together(calls: list[Call]) -> None:
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 2, "total_tokens": 16}
    parts: list[Any] = [
        {"type": "transcript.text.delta", "delta": "Good "},
        {"type": "transcript.text.delta", "delta": "day"},
    ]
    end = {"type": "transcript.text.done", "text": "Good day", "usage": usage}
    for sent in (parts, [*parts, end]):
        heard = flowledger.wrap(canned(_always(events(*sent)))).audio.transcriptions
        list(heard.create(model="gpt-4o-transcribe", file=_second_of_silence(), stream=True))
    assert [call.response for call in calls] == ["Good day"] * 2
    assert [call.usage.total_tokens for call in calls] == [None, 16]


def test_an_edited_image_is_recorded_with_the_names_of_its_files(calls: list[Call]) -> None:
    usage = {
        "input_tokens": 300,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 290},
        "output_tokens": 1000,
        "total_tokens": 1300,
    }
    answer = {"created": 1, "data": [{"b64_json": PNG}], "usage": usage}
    client = flowledger.wrap(canned(_always(answer)))
    client.images.edit(image=("cat.png", b"a cat"), prompt="a dog", model="gpt-image-1")
    [call] = calls
    assert [call.operation, call.prompt, call.usage.images] == ["images.edit", "a dog", 1]
    assert call.settings == {"files": ["cat.png"]}
    assert [call.usage.input_tokens, call.usage.input_image_tokens] == [300, 290]


@pytest.mark.parametrize(
    ("asked", "size", "quality"),
    [
        ({"model": "dall-e-3", "size": "1792x1024", "quality": "hd"}, "1792x1024", "hd"),
        ({"model": "dall-e-2", "n": 2, "size": "512x512"}, "512x512", None),
    ],
    ids=["dall-e-3", "dall-e-2"],
)
def test_pictures_of_dall_e_are_recorded_with_what_they_are_charged_by(
    client: OpenAI, calls: list[Call], asked: dict[str, Any], size: str, quality: str | None
) -> None:
    client.images.generate(prompt="a cat", **asked)
    [call] = calls
    assert [call.kind, call.usage.images, call.settings.get("n", 1)] == [
        "image",
        asked.get("n", 1),
        asked.get("n", 1),
    ]
    assert [call.settings.get("size"), call.settings.get("quality")] == [size, quality]
    assert "base64" not in str(call.response)


def _second_of_silence() -> io.BytesIO:
    audio = io.BytesIO()
    with wave.open(audio, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(100)
        file.writeframes(b"\x80" * 100)
    audio.name = "silence.wav"
    audio.seek(0)
    return audio


def test_transcriptions_are_recorded_with_their_seconds(client: OpenAI, calls: list[Call]) -> None:
    transcribe = client.audio.transcriptions.create
    answer = transcribe(model="whisper-1", file=_second_of_silence(), prompt="Names: Ana")
    text = transcribe(model="whisper-1", file=_second_of_silence(), response_format="text")
    counted = transcribe(model="gpt-4o-transcribe", file=_second_of_silence())
    assert [call.kind for call in calls] == ["speech"] * 3
    assert [call.prompt for call in calls] == ["Names: Ana", None, None]
    assert [call.response for call in calls] == [answer.text, text, counted.text]
    assert [call.usage.seconds for call in calls] == [1.0, None, None]
    assert calls[2].usage.input_audio_tokens == 10
    assert calls[0].settings == {"files": ["silence.wav"]}


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_translations_and_speech_are_recorded(calls: list[Call]) -> None:
    translated = {"text": "Hello", "duration": "2.5"}
    heard = flowledger.wrap(canned(_always(translated))).audio.translations
    heard.create(model="whisper-1", file=_second_of_silence())
    spoken = flowledger.wrap(canned(_always(b"ID3 sound"))).audio.speech
    answer = spoken.create(model="tts-1", input="Hello", voice="alloy")
    assert answer.content == b"ID3 sound"
    assert [call.operation for call in calls] == ["audio.translations", "audio.speech"]
    assert [calls[0].response, calls[0].usage.seconds] == ["Hello", 2.5]
    assert [calls[1].prompt, calls[1].settings] == ["Hello", {"voice": "alloy"}]
    assert calls[1].response.startswith("[audio/mpeg, 9 bytes, sha256 ")


@pytest.mark.parametrize(
    ("provider", "options"),
    [
        ("openai", {}),
        ("openai", {"base_url": "https://eu.api.openai.com/v1"}),
        ("openai", {"base_url": "http://localhost:8000/v1"}),
        ("azure", {"base_url": "https://me.openai.azure.com/openai/v1"}),
        ("api.mistral.ai", {"base_url": "https://api.mistral.ai/v1"}),
    ],
)
def test_the_provider_is_who_answers(
    calls: list[Call], provider: str, options: dict[str, Any]
) -> None:
    flowledger.wrap(canned(_always(COMPLETION), **options)).chat.completions.create(**ASKED)
    assert [call.provider for call in calls] == [provider]


def test_azures_clients_are_recorded_with_the_model_that_answered(calls: list[Call]) -> None:
    transport = http.MockTransport(lambda request: http.Response(200, json=COMPLETION))
    azure = AzureOpenAI(
        api_key="stub",
        api_version="2025-01-01",
        azure_endpoint="https://me.example",
        http_client=openai.DefaultHttpxClient(transport=transport),
    )
    flowledger.wrap(azure).with_options(timeout=3).chat.completions.create(**ASKED)
    [call] = calls
    assert [call.provider, call.model_asked, call.model] == [
        "azure",
        MODEL,
        "gpt-4o-mini-2024-07-18",
    ]
