"""Reading what a model's answer says about itself: text, model, usage, tool calls.

Works on SDK objects and on plain dicts alike, by the names that OpenAI-compatible APIs use.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from flowledger.records import ToolCall, Usage

__all__ = ["Reading", "field", "read_answer", "read_usage"]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer says: `response` is its text, or the whole answer where it is no text."""

    response: Any = None
    model: str | None = None
    usage: Usage | None = None
    tool_calls: list[ToolCall] = msgspec.field(default_factory=list)


def field(value: Any, *names: str) -> Any:
    """The first of these attributes or keys that is there and not None."""
    for name in names:
        found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        if found is not None:
            return found
    return None


def read_answer(answer: Any) -> Reading:
    """What a value returned by a tracked function or an SDK tells about the call."""
    if answer is None or isinstance(answer, str | bytes | int | float | list | tuple):
        return Reading(response=answer)
    usage = read_usage(field(answer, "usage"))
    model = field(answer, "model")
    if usage is None and not isinstance(field(answer, "choices"), list):
        return Reading(response=answer)
    messages = _messages(answer)
    texts = [text for message in messages if (text := message_text(message)) is not None]
    return Reading(
        response=(texts[0] if len(texts) == 1 else texts)
        if texts
        else None
        if messages
        else answer,
        model=model if isinstance(model, str) else None,
        usage=usage,
        tool_calls=[call for message in messages for call in _tool_calls(message)],
    )


def read_usage(usage: Any) -> Usage | None:
    """The provider's own numbers; None when the answer carries none.

    Sources: OpenAI's `CompletionUsage` and `ResponseUsage`, which call the same things
    `prompt_tokens` / `input_tokens` and `completion_tokens` / `output_tokens`.
    """
    if usage is None:
        return None
    given = field(usage, "prompt_tokens_details", "input_tokens_details")
    made = field(usage, "completion_tokens_details", "output_tokens_details")
    read = Usage(
        input_tokens=_count(field(usage, "prompt_tokens", "input_tokens")),
        output_tokens=_count(field(usage, "completion_tokens", "output_tokens")),
        cached_input_tokens=_count(field(given, "cached_tokens")) if given else None,
        input_audio_tokens=_count(field(given, "audio_tokens")) if given else None,
        reasoning_tokens=_count(field(made, "reasoning_tokens")) if made else None,
        output_audio_tokens=_count(field(made, "audio_tokens")) if made else None,
    )
    return read if read.total_tokens is not None else None


def message_text(message: Any) -> str | None:
    """The text of a chat message, its refusal where it refused, None where it has neither."""
    content = field(message, "content", "refusal", "text")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part for item in content if isinstance(part := field(item, "text"), str)]
        return "".join(parts) if parts else None
    return None


def _text_of(messages: list[Any]) -> str | list[str] | None:
    texts = [text for message in messages if (text := message_text(message)) is not None]
    return texts if len(texts) > 1 else texts[0] if texts else None


def _messages(answer: Any) -> list[Any]:
    choices = field(answer, "choices")
    if isinstance(choices, list):
        return [field(choice, "message") or choice for choice in choices]
    output = field(answer, "output")
    return output if isinstance(output, list) else []


def _tool_calls(message: Any) -> list[ToolCall]:
    """Function calls of a chat message, or of an item of the Responses API's output."""
    if field(message, "type") == "function_call":
        return [_tool_call(message, field(message, "call_id", "id"))]
    calls = field(message, "tool_calls")
    return [_tool_call(field(c, "function", "custom") or c, field(c, "id")) for c in calls or []]


def _tool_call(function: Any, call_id: Any) -> ToolCall:
    arguments = field(function, "arguments", "input")
    return ToolCall(
        name=str(field(function, "name") or ""),
        id=None if call_id is None else str(call_id),
        arguments=arguments if arguments is None or isinstance(arguments, str) else str(arguments),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
