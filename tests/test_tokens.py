"""What tokens a call took, where the provider did not say.

Numbers marked "cookbook" are those OpenAI prints in its cookbook, "How to count tokens with
tiktoken" (github.com/openai/openai-cookbook), and its API confirmed there.
"""

import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from splintr import Tokenizer

from flowledger.pricing import price
from flowledger.records import Call, Kind, Outcome, ToolCall, Usage
from flowledger.token_formulas import pixel_size
from flowledger.tokens import complete, count

_MIB = 1 << 20

# Of the cookbook, section 6.
_MESSAGES = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate "
        "jargon into plain English.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "New synergies will help drive top-line growth.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities "
        "for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client "
        "deliverable.",
    },
]
_HELLO = [{"role": "user", "content": "Hello!"}]  # 3 + "user" 1 + "Hello!" 2, and 3 to open


def call(**fields: Any) -> Call:
    """A chat call of gpt-4o without usage, unless told otherwise."""
    return Call(**{"id": "0" * 32, "kind": Kind.CHAT, "model": "gpt-4o", **fields})


def counted(**fields: Any) -> tuple[int | None, int | None, str]:
    """The input, the output and their source, after counting."""
    usage = complete(call(**fields)).usage
    return usage.input_tokens, usage.output_tokens, usage.source


# count


@pytest.mark.parametrize(
    ("text", "cl100k", "o200k"),
    [
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 9, 8),
        ("tiktoken is great!", 6, 6),
        ("", 0, 0),
    ],
)
def test_openai_models_are_counted_with_their_own_tokenizer(
    text: str, cl100k: int, o200k: int
) -> None:
    """The cookbook's numbers."""
    assert count(text, "gpt-4") == (cl100k, True)
    assert count(text, "gpt-4o") == (o200k, True)


# A text that the vocabularies cut into different numbers of tokens.
_TELLING = "お誕生日おめでとう antidisestablishmentarianism tiktoken is great! 12345 \n\n  x ≠ y"


@pytest.mark.parametrize(
    ("vocabulary", "models"),
    [
        (
            "o200k_base",
            "gpt-4o gpt-4o-mini-2024-07-18 gpt-4.1 gpt-4.5-preview gpt-5 gpt-5.2 o1 o3-mini "
            "o4-mini chatgpt-4o-latest gpt-oss:20b openai/gpt-oss-120b openai.gpt-oss-120b-1:0 "
            "azure/gpt-4o ft:gpt-4o-mini-2024-07-18:org::id openrouter/openai/gpt-4o",
        ),
        (
            "cl100k_base",
            "gpt-4 gpt-4-turbo gpt-4-32k gpt-3.5-turbo gpt-35-turbo text-embedding-3-small "
            "text-embedding-ada-002 ft:gpt-3.5-turbo-0125:org::id davinci-002",
        ),
        (
            "llama3",
            "llama-3.1-8b-instant llama3.3 meta-llama/Llama-3.3-70B-Instruct "
            "us.meta.llama3-1-70b-instruct-v1:0 deepseek-r1-distill-llama-70b",
        ),
        ("llama2", "meta-llama/Llama-2-7b-chat-hf vicuna-13b"),
        ("codellama", "codellama/CodeLlama-34b"),
        (
            "deepseek_v3",
            "deepseek-chat deepseek-ai/DeepSeek-V3.1 deepseek-reasoner us.deepseek.r1-v1:0",
        ),
        ("qwen3", "Qwen/Qwen2.5-72B-Instruct qwen3-32b qwq-32b deepseek-r1-distill-qwen-7b"),
        ("mistral_v1", "mistral.mistral-7b-instruct-v0:2 open-mixtral-8x7b"),
        ("mistral_v2", "mistralai/Mistral-7B-Instruct-v0.3 open-mixtral-8x22b codestral-2405"),
        ("mistral_v3", "open-mistral-nemo ministral-8b-2410"),
        ("kimi_k2", "moonshotai/kimi-k2.5"),
        ("glm4", "z-ai/glm-4.5-air"),
        ("phi4", "microsoft/phi-4"),
        ("olmo2", "allenai/OLMo-2-1124-13B"),
    ],
)
def test_a_model_whose_vocabulary_is_at_hand_is_counted_with_it(
    vocabulary: str, models: str
) -> None:
    """Names come with providers, regions, snapshots and fine-tunes around them."""
    tokens = len(Tokenizer.from_pretrained(vocabulary).encode_ordinary(_TELLING))
    names = models.split()
    assert dict.fromkeys(names, (tokens, True)) == {name: count(_TELLING, name) for name in names}


@pytest.mark.parametrize(
    "model",
    [
        None,
        "",
        "claude-sonnet-4-20250514",
        "gemini-2.5-pro",
        "gpt-6-sol",
        "meta-llama/llama-4-scout",
        "qwen3.5-27b",
        "qwen3-max",
        "deepseek-r1:7b",
        "deepseek-r1-0528-qwen3-8b",
        "phi-4-mini-instruct",
        "mistral-large-2407",
        "text-embedding-004",
        "my-gpt-4o",
        "gpt-4o" * 1000,
    ],
)
def test_every_other_model_is_counted_with_o200k_and_not_exact(model: str | None) -> None:
    """A family that shares a name need not share a vocabulary."""
    tokens, _ = count(_TELLING, "gpt-4o")
    assert count(_TELLING, model) == (tokens, False)


def test_special_tokens_in_a_text_are_text() -> None:
    """What a user types does not become a control token."""
    assert count("<|endoftext|>", "gpt-4o") == (7, True)
    assert count("<|im_start|>", "gpt-4") == (6, True)


def test_beyond_a_mebibyte_the_rest_is_taken_to_be_alike() -> None:
    """Half of the text is counted and doubled."""
    text = "The quick brown fox jumps. " * (2 * _MIB // 27)
    whole = len(Tokenizer.from_pretrained("o200k_base").encode_ordinary(text))
    tokens, exact = count(text, "gpt-4o")
    assert not exact
    assert tokens == pytest.approx(whole, rel=1e-4)


def test_the_bound_is_in_bytes() -> None:
    """A Japanese letter takes three."""
    assert count("あ" * (_MIB // 3), "gpt-4o")[1]
    assert not count("あ" * (_MIB // 3 + 1), "gpt-4o")[1]


@pytest.mark.parametrize("text", ["a", " ", "\n", "1", "'", "\0", "漢", "😀", "aé ", "-=*"])
def test_no_text_takes_long(text: str) -> None:
    """A mebibyte of anything, and what lies beyond, in well under two seconds."""
    begun = time.perf_counter()
    count(text * _MIB, "gpt-4o")
    assert time.perf_counter() - begun < 2


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters()), model=st.sampled_from(["gpt-4o", "gpt-4", "llama3", None]))
@example(text="\ud800", model="gpt-4o")
def test_any_text_can_be_counted(text: str, model: str | None) -> None:
    """At least one token for a text, at most about one for a byte; surrogates count too."""
    tokens, exact = count(text, model)
    assert bool(text) <= tokens <= len(text.encode("utf-8", "replace"))
    assert exact is (model is not None)


# complete


def test_messages_cost_three_tokens_each_and_three_to_open_the_answer() -> None:
    """The cookbook's example: 124 tokens with gpt-4o and 129 with gpt-4, as the API said."""
    assert counted(prompt=_MESSAGES, response="OK") == (124, 1, "counted")
    assert counted(prompt=_MESSAGES, response="OK", model="gpt-4") == (129, 1, "counted")


def test_what_the_provider_reported_stays() -> None:
    """The same call comes back, whatever its text says."""
    reported = call(prompt="a", response="b", usage=Usage(input_tokens=7, output_tokens=9))
    assert complete(reported) is reported


def test_only_what_is_missing_is_filled_in() -> None:
    """A number that is there stays, and so does everything else in the call."""
    known = Usage(input_tokens=7, cached_input_tokens=3)
    given_ = call(prompt="a b c", response="Hello!", usage=known, tags={"a": "b"})
    expected = msgspec.structs.replace(known, output_tokens=2, source="counted")
    assert complete(given_) == msgspec.structs.replace(given_, usage=expected)
    half: dict[str, Any] = {
        "prompt": "Hello!",
        "response": "Hello!",
        "usage": Usage(output_tokens=9),
    }
    assert counted(**half) == (2, 9, "counted")


def test_a_call_that_was_completed_stays() -> None:
    """Counting twice changes nothing."""
    once = complete(call(prompt=_MESSAGES, response="OK"))
    assert complete(once) is once


@pytest.mark.parametrize(
    "unchanged",
    [
        call(prompt="a", response="b", outcome=Outcome(success=False)),
        call(prompt="a", response="b", kind=Kind.IMAGE),
        call(prompt="a", response="b", kind=Kind.SPEECH),
        call(prompt="a", response="b", kind=Kind.RETRIEVAL),
        call(prompt="a", response="b", kind=Kind.CUSTOM, model=None),
        call(prompt=["a"], kind=Kind.EMBEDDING, usage=Usage(input_tokens=1)),
        call(),
        call(prompt=[], response=[]),
    ],
    ids=lambda unchanged: f"{unchanged.kind}-{unchanged.outcome.success}-{unchanged.prompt}",
)
def test_where_there_is_nothing_to_count_the_call_stays(unchanged: Call) -> None:
    """Failed, not charged by text, already known, or without text."""
    assert complete(unchanged) is unchanged


def test_a_tracked_function_with_a_model_is_counted() -> None:
    """The name that was asked for will do."""
    fields = {"kind": Kind.CUSTOM, "prompt": "Hello!", "response": "Hello!"}
    assert counted(**fields, model=None, model_asked="gpt-4o") == (2, 2, "counted")


def test_the_name_asked_for_tells_the_tokenizer_when_the_answer_does_not() -> None:
    """An Azure deployment may have any name."""
    fields = {"prompt": "お誕生日おめでとう", "response": "", "model": "our-deployment"}
    assert counted(**fields, model_asked="gpt-4") == (9, 0, "counted")


def test_a_side_without_text_stays_unknown() -> None:
    """A prompt that was not recorded has no number; an empty answer has 0."""
    assert counted(prompt=None, response="Hello!") == (None, 2, "counted")
    assert counted(prompt="Hello!", response="") == (2, 0, "counted")


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("Hello!", 2),
        (["Hello!", "Hello!"], 4),
        ([9906, 0, 1], 3),
        ([[9906, 0], [1]], 3),
    ],
)
def test_an_embedding_is_counted_by_text_or_by_token_number(prompt: Any, tokens: int) -> None:
    """It has no output."""
    fields = {"kind": Kind.EMBEDDING, "model": "text-embedding-3-small", "response": [0.1, 0.2]}
    assert counted(prompt=prompt, **fields) == (tokens, None, "counted")


@pytest.mark.parametrize(
    "response",
    [
        "Hello!",
        ["Hello!"],
        {"content": "Hello!", "role": "assistant"},
        {"choices": [{"message": {"role": "assistant", "content": "Hello!"}, "index": 0}]},
        {"choices": [{"text": "Hello!", "finish_reason": "stop"}]},
        {"content": [{"type": "text", "text": "Hello!"}]},
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello!"}]}]},
        {"output_text": "Hello!"},
        {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hello!"}]}}]},
        {"message": {"role": "assistant", "content": "Hello!"}, "done": True},
        {"role": "assistant", "content": None, "refusal": "Hello!"},
    ],
    ids=str,
)
def test_the_text_of_an_answer_is_found_in_the_shapes_providers_give_it(response: Any) -> None:
    """Two tokens in each; the envelope is not charged."""
    assert counted(prompt="Hello!", response=response) == (2, 2, "counted")


def test_several_answers_are_charged_together() -> None:
    """`n=2` gives two choices."""
    choices = [{"message": {"role": "assistant", "content": "Hello!"}}] * 2
    assert counted(prompt="Hello!", response={"choices": choices}) == (2, 4, "counted")


def picture(size: str, **more: str) -> list[dict[str, Any]]:
    """A message with a picture, as it is recorded."""
    url = f"[image/png, {size}99 bytes, sha256 {'0' * 64}]"
    image = {"type": "image_url", "image_url": {"url": url, **more}}
    return [{"role": "user", "content": [{"type": "text", "text": "Hello!"}, image]}]


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o", "1024x1024", "high", 765),
        ("gpt-4o", "2048x4096", "high", 1105),
        ("gpt-4o", "4096x8192", "low", 85),
        ("gpt-4o", "512x512", "auto", 255),
        ("gpt-4o-mini", "1024x1024", "high", 25501),
        ("o4-mini", "1024x1024", "high", 1762),  # 1024 patches
        ("o4-mini", "1800x2400", "high", 2498),  # 1452 patches
    ],
)
def test_a_picture_takes_the_tokens_of_the_published_formula(
    model: str, size: str, detail: str, tokens: int
) -> None:
    """The examples of OpenAI's guide, "Images and vision"; "Hello!" as a message takes 9."""
    prompt = picture(f"{size} pixels, ", detail=detail)
    assert counted(prompt=prompt, response="", model=model) == (9 + tokens, 0, "estimated")


def test_a_picture_whose_tokens_nobody_knows_leaves_the_call_uncounted_and_without_a_cost() -> None:
    call = Call(id="0" * 32, kind=Kind.VISION, response="A cat.", provider="openai")
    for model, size in (("gpt-4o", ""), ("claude-3-opus", "64x64 pixels, ")):
        asked = msgspec.structs.replace(call, model=model, prompt=picture(size))
        assert complete(asked) == asked
        assert price(complete(asked)) is None


def test_the_size_of_a_picture_is_read_from_its_header() -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (640).to_bytes(4) + (480).to_bytes(4)
    gif = b"GIF89a" + (640).to_bytes(2, "little") + (480).to_bytes(2, "little")
    frame = b"\xff\xc2\0\x11\x08" + (480).to_bytes(2) + (640).to_bytes(2)
    jpeg = b"\xff\xd8\xff\xe0\0\x10" + b"\0" * 14 + frame
    assert [(640, 480)] * 3 == [pixel_size(data) for data in (png, gif, jpeg)]
    assert [None] * 4 == [pixel_size(data) for data in (png[:20], gif[:8], jpeg[:22], b"text")]


@pytest.mark.parametrize(("model", "tokens"), [("gpt-4", 105), ("gpt-4o", 101)])
def test_tool_definitions_take_the_tokens_of_the_cookbook(model: str, tokens: int) -> None:
    """Cookbook, section 7: what its API reported for these messages and this tool."""
    unit = {"type": "string", "description": "The unit of temperature to return"}
    place = {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}
    tool = {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": {
                "type": "object",
                "properties": {
                    "location": place,
                    "unit": {**unit, "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["location"],
            },
        },
    }
    system = "You are a helpful assistant that can answer to questions about the weather."
    question = "What's the weather like in San Francisco?"
    prompt = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    found = counted(prompt=prompt, response="", model=model, settings={"tools": [tool]})
    assert found == (tokens, 0, "estimated")


def test_anthropics_system_text_is_one_more_message() -> None:
    """It is given beside the messages; the overhead of another maker's template is a guess."""
    prompt = {"system": "Hello!", "messages": _HELLO}
    assert counted(prompt=prompt, response="", model="claude-3-opus") == (15, 0, "estimated")


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "claude-3-opus"},
        {"model": "llama-3.1-8b-instant", "prompt": _HELLO},
        {"model": None},
        {"model": "o3-mini"},
        {"model": "gpt-5"},
        {"notes": ["prompt: cut to 4096 characters"]},
        {"settings": {"tools": [{"type": "function"}]}},
        {"settings": {"response_format": {"type": "json_object"}}},
        {"prompt": {"question": "Hello!"}},
        {"response": {"answer": "Hello!"}},
        {"tool_calls": [ToolCall(name="search", arguments="{}")]},
    ],
    ids=str,
)
def test_what_does_not_show_in_the_text_makes_it_an_estimate(fields: dict[str, Any]) -> None:
    """Another tokenizer, template or form; hidden thoughts; tools; text that was cut."""
    plain: dict[str, Any] = {"prompt": "Hello!", "response": "Hello!"}
    assert counted(**plain)[2] == "counted"
    assert counted(**{**plain, **fields})[2] == "estimated"


def test_what_was_asked_of_tools_is_part_of_the_output() -> None:
    """Once, whether the response shows it or the call's own list does."""
    arguments = '{"query": "Hello!"}'
    wanted = count("search", "gpt-4o")[0] + count(arguments, "gpt-4o")[0]
    function = {"id": "1", "type": "function", "function": {"name": "search"}}
    function["function"] = {"name": "search", "arguments": arguments}
    shown = {"choices": [{"message": {"role": "assistant", "tool_calls": [function]}}]}
    listed = [ToolCall(name="search", arguments=arguments)]
    outputs = {
        counted(response=shown)[1],
        counted(response=shown, tool_calls=listed)[1],
        counted(response=None, tool_calls=listed)[1],
    }
    assert outputs == {wanted}


def test_a_value_of_the_applications_own_is_counted_as_json() -> None:
    """As it is written without spaces."""
    tokens = count('{"answer":42}', "gpt-4o")[0]
    assert counted(prompt="Hello!", response={"answer": 42}) == (2, tokens, "estimated")


def test_many_long_messages_are_counted_together() -> None:
    """The bound holds for a call, not for a message."""
    message = {"role": "user", "content": "The quick brown fox. " * 10_000}
    begun = time.perf_counter()
    tokens, _, source = counted(prompt=[message] * 100, response="")
    assert time.perf_counter() - begun < 3
    assert source == "estimated"
    assert tokens == pytest.approx(100 * 50_000, rel=0.01)


def test_a_counted_call_has_a_price() -> None:
    """124 input tokens at 2.5 and 1 output token at 10 dollars a million."""
    done = complete(call(prompt=_MESSAGES, response="OK", provider="openai"))
    cost = price(done)
    assert cost is not None
    assert cost.total == 0.00032


# Values nobody should send

_KEYS = [
    "role",
    "content",
    "name",
    "choices",
    "message",
    "messages",
    "text",
    "type",
    "tool_calls",
    "function",
    "arguments",
    "parts",
    "output",
    "system",
    "x",
]
_ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(_KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=1000, deadline=None)
@given(
    prompt=_ODD,
    response=_ODD,
    odd=st.dictionaries(
        st.sampled_from(["model", "model_asked", "kind", "settings", "tool_calls", "notes"]), _ODD
    ),
)
def test_nothing_that_is_sent_raises(prompt: Any, response: Any, odd: dict[str, Any]) -> None:
    """What comes back is the call, with numbers that are none or not negative."""
    usage = complete(call(prompt=prompt, response=response, **odd)).usage
    assert (usage.input_tokens or 0) >= 0
    assert (usage.output_tokens or 0) >= 0


def _nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = {"content": [value]}
    return value


@pytest.mark.parametrize("depth", [10, 500, 100_000])
def test_no_depth_raises(depth: int) -> None:
    """Deeper than any provider answers, there is no text."""
    deep = _nested(depth)
    done = complete(call(prompt=[{"role": "user", "content": deep}], response=deep))
    assert done.usage.output_tokens == (1 if depth == 10 else None)
    assert complete(call(prompt={"a": deep}, response={"b": deep})).usage.source


def test_an_answer_that_holds_itself_comes_back_unchanged() -> None:
    """Such a value cannot be written down either."""
    ring: dict[str, Any] = {"x": 1}
    ring["y"] = ring
    odd = call(prompt="Hello!", response=ring)
    assert complete(odd) is odd


def test_counting_does_not_load_mlflow() -> None:
    """The store imports it in a process that must start fast."""
    code = "import sys, flowledger.tokens; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
