"""GenAI spans become calls, whatever their form, and nothing in one makes the reader fail."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowledger.capture.content import encode_bounded
from flowledger.integrations.genai import GenAISpan, call_id, read_calls, read_span
from flowledger.records import Call, ToolCall, Usage, decode
from tests.calls import NOW_NS, plain_values

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
ARGUMENTS = '{"city":"Porto"}'


def a_span(attributes: dict[str, Any], **fields: Any) -> GenAISpan:
    usual = GenAISpan("ab" * 16, "cd" * 8, None, "chat", NOW_NS, NOW_NS + 7, attributes)
    return usual._replace(**fields)


def read(attributes: dict[str, Any], **fields: Any) -> Call:
    call = read_span(a_span(attributes, **fields))
    assert call is not None
    return call


CURRENT: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "azure.ai.openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.request.temperature": 0.5,
    "gen_ai.request.stop_sequences": ("a", "b"),
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.response.time_to_first_chunk": 0.25,
    "gen_ai.conversation.id": "s-1",
    "gen_ai.usage.input_tokens": 9,
    "gen_ai.usage.output_tokens": 4,
    "gen_ai.usage.cache_read.input_tokens": 5,
    "gen_ai.usage.reasoning.output_tokens": 2,
    "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
    "gen_ai.input.messages": json.dumps(
        [{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]
    ),
    "gen_ai.output.messages": json.dumps(
        [
            {
                "role": "assistant",
                "parts": [
                    {"type": "text", "content": "Ho"},
                    {"type": "tool_call", "id": "c1", "name": "w", "arguments": {"city": "Porto"}},
                ],
                "finish_reason": "stop",
            }
        ]
    ),
}
INDEXED: dict[str, Any] = {
    "gen_ai.system": "openai",
    "llm.request.type": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.prompt_tokens": 9,
    "gen_ai.usage.completion_tokens": 4,
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": "Be brief.",
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": "Hi",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "Ho",
    "gen_ai.completion.0.tool_calls.0.id": "c1",
    "gen_ai.completion.0.tool_calls.0.name": "w",
    "gen_ai.completion.0.tool_calls.0.arguments": ARGUMENTS,
}
OPENINFERENCE: dict[str, Any] = {
    "openinference.span.kind": "LLM",
    "llm.system": "openai",
    "llm.model_name": "gpt-4o",
    "llm.invocation_parameters": '{"temperature": 0.5, "api_key": "sk-no", "model": "gpt-4o"}',
    "llm.token_count.prompt": 9,
    "llm.token_count.completion": 4,
    "llm.token_count.prompt_details.cache_read": 5,
    "llm.input_messages.0.message.role": "system",
    "llm.input_messages.0.message.content": "Be brief.",
    "llm.input_messages.1.message.role": "user",
    "llm.input_messages.1.message.contents.0.message_content.type": "text",
    "llm.input_messages.1.message.contents.0.message_content.text": "Hi",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "Ho",
    "llm.output_messages.0.message.tool_calls.0.tool_call.id": "c1",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "w",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": ARGUMENTS,
    "session.id": "s-1",
    "user.id": "ana",
}
EVENTS = [
    ("gen_ai.system.message", {"content": "Be brief."}),
    ("gen_ai.user.message", {"content": "Hi"}),
    (
        "gen_ai.choice",
        {
            "message": json.dumps(
                {
                    "content": "Ho",
                    "tool_calls": [{"id": "c1", "function": {"name": "w", "arguments": ARGUMENTS}}],
                }
            )
        },
    ),
]
BARE = {key: value for key, value in CURRENT.items() if not key.endswith(("messages", "ructions"))}


@pytest.mark.parametrize(
    ("attributes", "events"),
    [(CURRENT, ()), (INDEXED, ()), (OPENINFERENCE, ()), (BARE, EVENTS)],
    ids=["current", "indexed", "openinference", "events"],
)
def test_every_form_of_a_chat_is_read_alike(attributes: dict[str, Any], events: Any) -> None:
    call = read(attributes, events=events)
    assert (ASKED, "Ho") == (call.prompt, call.response)
    assert [ToolCall(name="w", id="c1", arguments=ARGUMENTS)] == call.tool_calls
    assert ("chat", "chat", "gpt-4o") == (call.operation, call.kind, call.model_asked)
    assert (9, 4) == (call.usage.input_tokens, call.usage.output_tokens)


def test_the_current_conventions_fill_every_field_they_have() -> None:
    call = read(CURRENT, resource={"deployment.environment.name": "live", "service.name": "shop"})
    assert ("azure", "gpt-4o-2024-08-06") == (call.provider, call.model)
    assert {"temperature": 0.5, "stop_sequences": ("a", "b")} == call.settings
    assert {"finish_reason": "stop"} == call.params
    assert (7, 250_000_000) == (call.duration_ns, call.first_token_ns)
    assert ("s-1", "live") == (call.actor.session_id, call.actor.environment)
    assert (5, 2) == (call.usage.cached_input_tokens, call.usage.reasoning_tokens)
    assert "shop" == call.tags["service_name"]


def test_keys_among_the_settings_are_not_kept() -> None:
    call = read(OPENINFERENCE)
    assert {"temperature": 0.5, "api_key": "***"} == call.settings
    assert ("ana", "s-1") == (call.actor.user_id, call.actor.session_id)


def test_details_come_from_the_event_where_the_span_has_none() -> None:
    moved = {key: value for key, value in CURRENT.items() if key not in BARE}
    event = ("gen_ai.client.inference.operation.details", moved)
    assert read(CURRENT) == read(BARE, events=[event])


def test_a_failure_tells_its_type_message_and_stack() -> None:
    raised = {"exception.type": "RateLimit", "exception.message": "slow down"}
    call = read(
        CURRENT, failed=True, events=[("exception", {**raised, "exception.stacktrace": "x"})]
    )
    outcome = call.outcome
    assert (False, "RateLimit") == (outcome.success, outcome.error_type)
    assert ("slow down", "x") == (outcome.message, outcome.stack)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"http.request.method": "GET"},
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "gpt-4o"},
        {"gen_ai.operation.name": "execute_tool"},
        {"openinference.span.kind": "CHAIN", "llm.model_name": "gpt-4o"},
    ],
)
def test_spans_that_ask_no_model_are_no_calls(attributes: dict[str, Any]) -> None:
    assert read_span(a_span(attributes)) is None


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"gen_ai.operation.name": "embeddings"}, "embedding"),
        ({"gen_ai.operation.name": "text_completion"}, "completion"),
        ({"openinference.span.kind": "EMBEDDING"}, "embedding"),
        ({"gen_ai.request.model": "gpt-4o"}, "chat"),
        ({"gen_ai.operation.name": "sing", "gen_ai.request.model": "m"}, "custom"),
        (
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"image"}]}]',
            },
            "vision",
        ),
    ],
)
def test_the_kind_follows_the_operation(attributes: dict[str, Any], kind: str) -> None:
    assert kind == read(attributes).kind


def test_cached_tokens_told_apart_are_added_to_the_input() -> None:
    counted = {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.cache_read.input_tokens": 10}
    call = read({"gen_ai.operation.name": "chat", **counted})
    assert (13, 1) == (call.usage.input_tokens, len(call.notes))


def test_the_id_of_a_span_is_always_the_same_and_begins_with_its_time() -> None:
    first, again = read(CURRENT), read(CURRENT)
    other = read(CURRENT, span_id="ce" * 8)
    assert first.id == again.id != other.id
    assert NOW_NS // 1_000_000 == int(first.id[:12], 16)
    assert ("7", True) == (first.id[12], first.id[16] in "89ab")


def test_a_call_inside_a_call_is_the_one_that_counts() -> None:
    outer = a_span(CURRENT, span_id="aa" * 8)
    inner = a_span(CURRENT, span_id="bb" * 8, parent_id="aa" * 8)
    found = {call.tags["otel.span_id"]: call for call in read_calls([inner, outer])}
    assert (1, Usage()) == (found["aa" * 8].inner_calls, found["aa" * 8].usage)
    assert (0, 9) == (found["bb" * 8].inner_calls, found["bb" * 8].usage.input_tokens)
    assert found["aa" * 8].id == found["bb" * 8].parent_id


NAMES = sorted({*CURRENT, *INDEXED, *OPENINFERENCE, "gen_ai.prompt", "input.value", "error.type"})
ODD_INDEXES = st.from_regex(
    r"gen_ai\.(prompt|completion)\.[0-9]{1,30}\.[a-z.0-9]{0,20}", fullmatch=True
)
OPERATIONS = st.sampled_from(["chat", "embeddings", "LLM", "", "other", "invoke_agent"])
as_json = plain_values.map(lambda value: msgspec.json.encode(value).decode())
odd_values = plain_values | as_json | st.floats() | st.binary(max_size=20) | st.just("[" * 9000)
attributes = st.dictionaries(st.sampled_from(NAMES) | ODD_INDEXES, odd_values, max_size=12)
events = st.lists(
    st.tuples(st.sampled_from([name for name, _ in EVENTS] + ["exception"]), attributes), max_size=3
)


@given(attributes, events, OPERATIONS, st.integers(), st.integers(), st.booleans())
def test_whatever_a_span_holds_it_is_read_and_can_be_kept(
    given_: dict[str, Any], events: Any, operation: str, start: int, end: int, failed: bool
) -> None:
    named = {**given_, "gen_ai.operation.name": operation, "gen_ai.request.model": "gpt-4o"}
    span = a_span(named, events=events, start_ns=start, end_ns=end, failed=failed, message="no")
    for call in read_calls([span]):
        kept = decode(encode_bounded(call, 2048))
        assert isinstance(kept, Call)
        assert call_id(span.trace_id, span.span_id, call.start_ns) == kept.id
        counts = msgspec.structs.asdict(kept.usage).values()
        assert all(0 <= n <= 2**62 for n in counts if isinstance(n, int))
        assert 32 << 10 > len(msgspec.json.encode(kept))
