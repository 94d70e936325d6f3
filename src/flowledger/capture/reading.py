"""Reading what a model's answer says about itself: text, model, usage, tool calls.

Works on SDK objects and on plain dicts alike, by the names that OpenAI-compatible APIs use.
"""

import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from flowledger.records import ToolCall, Usage

__all__ = [
    "TOOL_CALLS",
    "Reading",
    "field",
    "message_text",
    "read_answer",
    "read_reply",
    "read_usage",
    "tool_call",
]

PART_TEXT = ("text", "refusal")
INPUT_TOKENS = ("prompt_tokens", "input_tokens")
OUTPUT_TOKENS = ("completion_tokens", "output_tokens")
TOOL_CALLS = ("function_call", "custom_tool_call")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer says: `response` is its text, or the whole answer where it is no text.

    `cost_usd` and `metrics` are what the answer itself says of the call.
    """

    response: Any = None
    model: str | None = None
    usage: Usage | None = None
    tool_calls: list[ToolCall] = msgspec.field(default_factory=list)
    cost_usd: float | None = None
    metrics: dict[str, float] = msgspec.field(default_factory=dict)


def field(value: Any, *names: str) -> Any:
    """The first of these attributes or keys that is there and not None."""
    kind: Any = type(value)
    is_map = _is_map(kind)
    for name in names:
        found = value.get(name) if is_map else getattr(value, name, None)
        if found is not None:
            return found
    return None


@functools.lru_cache(maxsize=1000)
def _is_map(kind: Any) -> bool:
    return issubclass(kind, Mapping)


def read_answer(answer: Any) -> Reading:
    """What a value returned by a tracked function or an SDK tells about the call."""
    if answer is None or isinstance(answer, str | bytes | int | float | list | tuple):
        return Reading(response=answer)
    reading = read_reply(answer)
    if reading.usage is None and not isinstance(field(answer, "choices"), list):
        return Reading(response=answer)
    return reading


def read_reply(answer: Any) -> Reading:
    """What an answer with choices (chat, text completions) or output (responses) tells."""
    model = field(answer, "model")
    items = field(answer, "choices", "output")
    items = items if isinstance(items, list) else []
    messages, calls = _output(items) if field(answer, "choices") is None else _choices(items)
    return Reading(
        response=_text_of(messages) if items else answer,
        model=model if isinstance(model, str) else None,
        usage=read_usage(field(answer, "usage")),
        tool_calls=[tool_call(call) for call in calls],
    )


def read_usage(usage: Any) -> Usage | None:
    """The provider's own numbers; None when the answer carries none.

    Sources: OpenAI's `CompletionUsage`, `ResponseUsage` and the usage of transcriptions, which call
    the same things `prompt_tokens` / `input_tokens` and `completion_tokens` / `output_tokens`.
    """
    if usage is None:
        return None
    given = field(usage, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    made = field(usage, "completion_tokens_details", "output_tokens_details")
    read = Usage(
        input_tokens=_count(field(usage, *INPUT_TOKENS)),
        output_tokens=_count(field(usage, *OUTPUT_TOKENS)),
        cached_input_tokens=_count(field(given, "cached_tokens")) if given else None,
        cache_write_tokens=_count(field(given, "cache_write_tokens")) if given else None,
        input_audio_tokens=_count(field(given, "audio_tokens")) if given else None,
        input_image_tokens=_count(field(given, "image_tokens")) if given else None,
        reasoning_tokens=_count(field(made, "reasoning_tokens")) if made else None,
        output_audio_tokens=_count(field(made, "audio_tokens")) if made else None,
    )
    return read if read.total_tokens is not None else None


def message_text(message: Any) -> str | None:
    """The text of a chat message, its refusal where it refused, None where it has neither."""
    content = field(message, "content", "refusal", "text")
    if content is None:
        content = field(field(message, "audio"), "transcript")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [text for part in content if isinstance(text := field(part, *PART_TEXT), str)]
        return "".join(texts) if texts else None
    return None


def _text_of(messages: list[Any]) -> str | list[str] | None:
    texts = [text for message in messages if (text := message_text(message)) is not None]
    return texts if len(texts) > 1 else texts[0] if texts else None


def _choices(choices: list[Any]) -> tuple[list[Any], list[Any]]:
    """The messages of chat or text completions, and the tools they call."""
    messages = [field(choice, "message") or choice for choice in choices]
    return messages, [c for message in messages for c in field(message, "tool_calls") or ()]


def _output(items: list[Any]) -> tuple[list[Any], list[Any]]:
    """The messages among the Responses API's output, and the tools called; not its reasoning."""
    kinds = [(field(item, "type"), item) for item in items]
    messages = [item for kind, item in kinds if kind in (None, "message")]
    return messages, [item for kind, item in kinds if kind in TOOL_CALLS]


def tool_call(call: Any) -> ToolCall:
    """One call of a tool, as any of OpenAI's APIs writes it."""
    function = field(call, "function", "custom") or call
    call_id, arguments = field(call, "call_id", "id"), field(function, "arguments", "input")
    return ToolCall(
        name=str(field(function, "name") or ""),
        id=None if call_id is None else str(call_id),
        arguments=arguments if arguments is None or isinstance(arguments, str) else str(arguments),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
