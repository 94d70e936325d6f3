"""What is recorded of each endpoint of Anthropic's API."""

from typing import Any

import msgspec

from flowledger.capture.reading import field, message_text
from flowledger.integrations.anthropic_parts import CompletionParts, MessageParts
from flowledger.integrations.sdk_endpoints import Body, Endpoint, Fields, always
from flowledger.records import Kind, ToolCall, Usage

__all__ = ["ENDPOINTS"]

CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")


def _kind(body: Body) -> Kind:
    parts = (part for message in body.get("messages") or () for part in _parts(message))
    return Kind.VISION if any(field(part, "type") == "image" for part in parts) else Kind.CHAT


def _parts(message: Any) -> list[Any]:
    content = field(message, "content")
    return content if isinstance(content, list) else []


def _read_message(message: Any) -> Fields:
    """Text, tools called, tokens; what the model thought is counted and not kept."""
    blocks = _parts(message)
    reason = field(message, "stop_reason")
    return {
        "response": message_text({"content": [b for b in blocks if field(b, "type") == "text"]}),
        "model": field(message, "model"),
        "usage": _usage(field(message, "usage")),
        "tool_calls": [_call(block) for block in blocks if field(block, "type") in CALLS],
        "params": {"finish_reason": reason} if reason else {},
        "settings": _tier(field(message, "usage")),
    }


def _tier(usage: Any) -> Fields:
    """The service that was given, where it is none of the usual."""
    tier = field(usage, "service_tier")
    return {"service_tier": tier} if tier in ("priority", "flex") else {}


def _usage(usage: Any) -> Usage | None:
    """Anthropic counts apart what came from the cache and what went to it; our input holds all."""
    if usage is None:
        return None
    read = field(usage, "cache_read_input_tokens")
    written = field(usage, "cache_creation_input_tokens")
    fresh = field(usage, "input_tokens")
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=field(usage, "output_tokens"),
        cached_input_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=field(field(usage, "cache_creation"), "ephemeral_1h_input_tokens"),
        reasoning_tokens=field(field(usage, "output_tokens_details"), "thinking_tokens"),
    )


def _call(block: Any) -> ToolCall:
    given = field(block, "input")
    arguments = given if given is None or isinstance(given, str) else _json(given)
    return ToolCall(name=str(field(block, "name")), id=field(block, "id"), arguments=arguments)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _results(body: Body) -> list[ToolCall]:
    """The results in the last message, each with the call it is the result of."""
    messages = list(body.get("messages") or ())
    last = _parts(messages[-1]) if messages else []
    told = [part for part in last if field(part, "type") == "tool_result"]
    if not told:
        return []
    parts = (part for message in messages for part in _parts(message))
    asked = {call.id: call for call in map(_call, (p for p in parts if field(p, "type") in CALLS))}
    return [_joined(asked, part) for part in told]


def _joined(asked: dict[str | None, ToolCall], part: Any) -> ToolCall:
    key = field(part, "tool_use_id")
    call = asked.get(key, ToolCall(name="", id=key))
    return msgspec.structs.replace(call, result=message_text(part))


def _read_completion(answer: Any) -> Fields:
    reason = field(answer, "stop_reason")
    return {
        "response": field(answer, "completion"),
        "model": field(answer, "model"),
        "params": {"finish_reason": reason} if reason else {},
    }


MESSAGES = Endpoint(
    "messages", _kind, ("messages", "system"), _read_message, MessageParts, results=_results
)
ENDPOINTS = {
    "v1/messages": MESSAGES,
    "v1/complete": Endpoint(
        "complete", always(Kind.COMPLETION), ("prompt",), _read_completion, CompletionParts
    ),
}
