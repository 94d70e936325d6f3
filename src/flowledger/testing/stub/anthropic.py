"""Anthropic's Messages API, plain and as a stream of its events, and its errors."""

from collections.abc import Iterator
from typing import Any

import msgspec

from flowledger.testing.stub.answers import count as tokens_of
from flowledger.testing.stub.answers import pieces, prose
from flowledger.testing.stub.said import (
    Answer,
    Ask,
    Said,
    Tool,
    Wanted,
    answer_schema,
    chosen_tool,
    encode,
    prompt_tokens,
    say,
)
from flowledger.testing.stub.steering import Refusal

__all__ = ["count_tokens", "error_body", "messages", "refusal", "serves"]

MESSAGES = "/v1/messages"
# What a model thinks where the caller lets it and says no number.
THOUGHT = 20
# A picture, about: Anthropic counts width times height over 750.
PICTURE = 1400
BROKEN = b'event: content_block_delta\ndata: {"type": "content_block_del\n\n'

# What the end of a stream does not say again.
_TOLD_AT_THE_START = ("cache_creation", "service_tier")
_Event = dict[str, Any]
# Status: type and message, as Anthropic words them.
_ERRORS: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "The request was refused, as asked by x-stub-status."),
    401: ("authentication_error", "invalid x-api-key"),
    403: ("permission_error", "Your API key does not have permission to use this resource."),
    404: ("not_found_error", "The requested resource could not be found."),
    413: ("request_too_large", "Request exceeds the maximum size."),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    504: ("timeout_error", "The request timed out while processing."),
    529: ("overloaded_error", "Overloaded"),
}
_OTHER = ("api_error", "Internal server error")


def serves(path: str) -> bool:
    """Whether a path is Anthropic's, so that its errors are too."""
    return path.startswith(MESSAGES)


def refusal(status: int, retry_after: float) -> Refusal:
    """The error Anthropic sends with that status; 429 says when to come back."""
    _, message = _ERRORS.get(status, _OTHER if status >= 500 else _ERRORS[400])
    headers = {"retry-after-ms": str(round(retry_after * 1000))} if status == 429 else {}
    if headers:
        headers["retry-after"] = str(max(1, round(retry_after)))
    return Refusal(status, message, headers=headers)


def error_body(refused: Refusal, request_id: str) -> dict[str, Any]:
    """A refusal in Anthropic's form."""
    kind, _ = _ERRORS.get(refused.status, _OTHER if refused.status >= 500 else _ERRORS[400])
    error = {"type": kind, "message": refused.error["message"]}
    return {"type": "error", "error": error, "request_id": request_id}


def messages(ask: Ask) -> Answer:
    """Answer POST /v1/messages."""
    _check(ask.body, limited=True)
    blocks, said = _blocks(ask)
    usage = _usage(ask, blocks)
    final = {
        "id": ask.id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": blocks,
        "stop_reason": _reason(said),
        "stop_sequence": None,
        "usage": usage,
    }
    if ask.body.get("stream"):
        events = map(_encoded, _events(final))
        return Answer(events=events, tokens=usage["output_tokens"], broken=BROKEN)
    return Answer(body=encode(final), tokens=usage["output_tokens"])


def count_tokens(ask: Ask) -> Answer:
    """Answer POST /v1/messages/count_tokens."""
    _check(ask.body, limited=False)
    return Answer(body=encode({"input_tokens": _read(ask.body)}))


def _check(body: dict[str, Any], *, limited: bool) -> None:
    """Refuse what Anthropic would, in its words."""
    required = ("model", "messages", "max_tokens") if limited else ("model", "messages")
    for name in required:
        if body.get(name) is None:
            raise Refusal(400, f"{name}: Field required")
    if not isinstance(body["messages"], list) or not body["messages"]:
        raise Refusal(400, "messages: at least one message is required")
    for index, message in enumerate(body["messages"]):
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
            raise Refusal(400, f'messages.{index}.role: Unexpected role; use "user" or "assistant"')
    limit = body.get("max_tokens", 1)
    if type(limit) is not int or limit < 1:
        raise Refusal(400, "max_tokens: must be greater than or equal to 1")
    if not 0 <= (body.get("temperature") or 0) <= 1:
        raise Refusal(400, "temperature: range: 0..1")
    for index, tool in enumerate(body.get("tools") or ()):
        if not tool.get("name"):
            raise Refusal(400, f"tools.{index}.name: Field required")


def _blocks(ask: Ask) -> tuple[list[dict[str, Any]], Said]:
    """What the model thinks, where it may, and then says."""
    said = say(_wanted(ask.body), ask)
    thought = []
    if (ask.body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        text = prose(ask.seed + 1, ask.steer.reasoning_tokens or THOUGHT)
        thought = [{"type": "thinking", "thinking": text, "signature": ask.id("sig_")}]
    if said.tool is None:
        return [*thought, {"type": "text", "text": said.text, "citations": None}], said
    given = msgspec.json.decode(said.text)
    called = {"type": "tool_use", "id": ask.id("toolu_"), "name": said.tool, "input": given}
    return [*thought, called], said


def _wanted(body: dict[str, Any]) -> Wanted:
    own = [tool for tool in body.get("tools") or () if "input_schema" in tool]
    tools = [Tool(tool["name"], tool["input_schema"]) for tool in own]
    choice = body.get("tool_choice") or {}
    last = body["messages"][-1].get("content")
    parts = last if isinstance(last, list) else []
    answered = any(part.get("type") == "tool_result" for part in parts)
    form = (body.get("output_config") or {}).get("format") or body.get("output_format")
    return Wanted(
        tool=chosen_tool(
            tools,
            choice if choice.get("type") == "tool" else choice.get("type"),
            answered=answered,
        ),
        schema=answer_schema(form, form),
        limit=body.get("max_tokens"),
    )


def _reason(said: Said) -> str:
    if said.tool is not None:
        return "tool_use"
    return "end_turn" if said.complete else "max_tokens"


def _block_tokens(block: dict[str, Any]) -> int:
    if block["type"] == "tool_use":
        return tokens_of(block["name"]) + tokens_of(encode(block["input"]).decode())
    return tokens_of(block.get("text") or block.get("thinking") or "")


def _read(body: dict[str, Any]) -> int:
    """The tokens of all that the model reads, counted with OpenAI's tokenizer."""
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    contents = [message.get("content") for message in body["messages"]]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    pictures = [part for part in parts if part.get("type") == "image"]
    read: int = prompt_tokens([*system, *body["messages"]], body.get("tools"))
    return read + PICTURE * len(pictures)


def _usage(ask: Ask, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """As Anthropic counts: what came from the cache, or went to it, is not in `input_tokens`."""
    read = _read(ask.body)
    cached = min(ask.steer.cached_tokens, read)
    kept = min(ask.steer.cache_write_tokens, read - cached)
    return {
        "input_tokens": read - cached - kept,
        "cache_creation_input_tokens": kept,
        "cache_read_input_tokens": cached,
        "cache_creation": {"ephemeral_5m_input_tokens": kept, "ephemeral_1h_input_tokens": 0},
        "output_tokens": sum(map(_block_tokens, blocks)),
        "output_tokens_details": {
            "thinking_tokens": sum(tokens_of(one.get("thinking", "")) for one in blocks)
        },
        "service_tier": "standard",
    }


def _encoded(event: _Event) -> bytes:
    return f"event: {event['type']}\n".encode() + b"data: " + encode(event) + b"\n\n"


def _events(final: dict[str, Any]) -> Iterator[_Event]:
    usage = final["usage"]
    begun = {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    yield {"type": "message_start", "message": final | begun}
    for index, block in enumerate(final["content"]):
        yield from ({"index": index, **event} for event in _block_events(block))
        if index == 0:
            yield {"type": "ping"}
    ended = {"stop_reason": final["stop_reason"], "stop_sequence": None}
    counted = {name: usage[name] for name in usage if name not in _TOLD_AT_THE_START}
    yield {"type": "message_delta", "delta": ended, "usage": counted}
    yield {"type": "message_stop"}


def _block_events(block: dict[str, Any]) -> Iterator[_Event]:
    kind = block["type"]
    empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}
    started = block | empty.get(kind, {"input": {}})
    yield {"type": "content_block_start", "content_block": started}
    for delta in _deltas(block):
        yield {"type": "content_block_delta", "delta": delta}
    yield {"type": "content_block_stop"}


def _deltas(block: dict[str, Any]) -> Iterator[_Event]:
    match block["type"]:
        case "text":
            yield from ({"type": "text_delta", "text": one} for one in pieces(block["text"]))
        case "thinking":
            for one in pieces(block["thinking"]):
                yield {"type": "thinking_delta", "thinking": one}
            yield {"type": "signature_delta", "signature": block["signature"]}
        case "tool_use":
            yield {"type": "input_json_delta", "partial_json": ""}
            for one in pieces(encode(block["input"]).decode()):
                yield {"type": "input_json_delta", "partial_json": one}
