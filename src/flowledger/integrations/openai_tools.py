"""The results of tools, as the next request brings them back to OpenAI's models."""

import itertools
from collections.abc import Iterable
from typing import Any

import msgspec

from flowledger.capture.reading import TOOL_CALLS, field, message_text, tool_call
from flowledger.integrations.sdk_endpoints import Body
from flowledger.records import ToolCall

__all__ = ["chat_results", "response_results"]

SPOKEN = (*TOOL_CALLS, "reasoning")
OUTPUTS = ("function_call_output", "custom_tool_call_output")


def chat_results(body: Body) -> list[ToolCall]:
    """The `tool` messages since the last answer, each with the call it is the result of."""
    messages = list(body.get("messages") or ())
    told = [message for message in _since_answer(messages) if field(message, "role") == "tool"]
    if not told:
        return []
    calls = [call for message in messages for call in field(message, "tool_calls") or ()]
    return _joined(calls, ((field(message, "tool_call_id"), message) for message in told))


def response_results(body: Body) -> list[ToolCall]:
    """The outputs since the last answer; the call itself may be known to the server alone."""
    items = body.get("input")
    items = items if isinstance(items, list) else []
    told = [item for item in _since_answer(items) if field(item, "type") in OUTPUTS]
    calls = [item for item in items if field(item, "type") in TOOL_CALLS]
    return _joined(calls, ((field(item, "call_id"), item) for item in told))


def _since_answer(items: list[Any]) -> list[Any]:
    """What came after the model spoke last."""
    new = list(itertools.takewhile(lambda item: not _is_spoken(item), reversed(items)))
    return new[::-1]


def _is_spoken(item: Any) -> bool:
    return field(item, "role") == "assistant" or field(item, "type") in SPOKEN


def _joined(calls: Iterable[Any], told: Iterable[tuple[Any, Any]]) -> list[ToolCall]:
    asked = {call.id: call for call in map(tool_call, calls)}
    return [
        msgspec.structs.replace(asked.get(key, ToolCall(name="", id=key)), result=_result(item))
        for key, item in told
    ]


def _result(item: Any) -> str | None:
    return message_text({"content": field(item, "output", "content")})
