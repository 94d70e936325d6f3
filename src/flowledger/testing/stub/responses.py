"""The Responses API, plain and as a stream of its typed events."""

from collections.abc import Iterator
from itertools import count as numbers
from typing import Any

from flowledger.testing.stub import checks
from flowledger.testing.stub.answers import pieces
from flowledger.testing.stub.said import (
    CREATED,
    Answer,
    Ask,
    Said,
    Tool,
    Wanted,
    answer_schema,
    chosen_tool,
    encode,
    event,
    prompt_tokens,
    say,
)

_Event = dict[str, Any]


def responses(ask: Ask) -> Answer:
    """Answer POST /v1/responses."""
    body = ask.body
    checks.check(body, "input", checks.RESPONSES)
    checks.check_tools(body.get("tools") or [], nested=False)
    said = say(_wanted(body), ask)
    usage = _usage(ask, said)
    final = _response(ask, said) | {"usage": usage}
    if body.get("stream"):
        events = _numbered(_events(ask, said, final))
        return Answer(events=events, tokens=usage["output_tokens"])
    return Answer(body=encode(final), tokens=usage["output_tokens"])


def _wanted(body: dict[str, Any]) -> Wanted:
    functions = [tool for tool in body.get("tools") or [] if tool["type"] == "function"]
    tools = [Tool(one["name"], one.get("parameters") or {"type": "object"}) for one in functions]
    answered = any(item.get("type") == "function_call_output" for item in _items(body["input"]))
    return Wanted(
        tool=chosen_tool(tools, body.get("tool_choice"), answered=answered),
        schema=_schema(body),
        limit=body.get("max_output_tokens"),
    )


def _schema(body: dict[str, Any]) -> Any:
    form = (body.get("text") or {}).get("format")
    return answer_schema(form, form)


def _items(value: Any, role: str = "user") -> list[dict[str, Any]]:
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def _usage(ask: Ask, said: Said) -> dict[str, Any]:
    body, steer = ask.body, ask.steer
    items = [*_items(body.get("instructions") or [], "system"), *_items(body["input"])]
    read = prompt_tokens(items, body.get("tools"), _schema(body))
    written = said.tokens + steer.reasoning_tokens
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": min(steer.cached_tokens, read),
            "cache_write_tokens": 0,
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": steer.reasoning_tokens},
        "total_tokens": read + written,
    }


def _response(ask: Ask, said: Said) -> dict[str, Any]:
    body = ask.body
    return {
        "id": ask.id("resp_"),
        "object": "response",
        "created_at": CREATED,
        "status": "completed" if said.complete else "incomplete",
        "background": False,
        "error": None,
        "incomplete_details": None if said.complete else {"reason": "max_output_tokens"},
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": ask.model,
        "output": [_item(ask, said)],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation") or "disabled",
        "usage": None,
        "user": body.get("user"),
        "metadata": body.get("metadata") or {},
    }


def _item(ask: Ask, said: Said) -> dict[str, Any]:
    status = "completed" if said.complete else "incomplete"
    if said.tool is None:
        head = {"id": ask.id("msg_"), "type": "message", "role": "assistant", "status": status}
        return head | {"content": [_text_part(said.text)]}
    head = {"id": ask.id("fc_"), "type": "function_call", "status": status}
    return head | {"call_id": ask.id("call_"), "name": said.tool, "arguments": said.text}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _numbered(events: Iterator[_Event]) -> Iterator[bytes]:
    for number, one in zip(numbers(), events, strict=False):
        yield f"event: {one['type']}\n".encode() + event(one | {"sequence_number": number})


def _events(ask: Ask, said: Said, final: dict[str, Any]) -> Iterator[_Event]:
    begun = final | {"status": "in_progress", "output": [], "usage": None}
    begun["incomplete_details"] = None
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    item = final["output"][0]
    empty: dict[str, Any] = {"content": []} if said.tool is None else {"arguments": ""}
    started = item | empty | {"status": "in_progress"}
    yield {"type": "response.output_item.added", "output_index": 0, "item": started}
    where = {"item_id": item["id"], "output_index": 0}
    yield from _text_events(said, where) if said.tool is None else _call_events(said, where)
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": f"response.{final['status']}", "response": final}


def _text_events(said: Said, where: dict[str, Any]) -> Iterator[_Event]:
    where = where | {"content_index": 0}
    part = {"type": "response.content_part.added", "part": _text_part("")}
    yield part | where
    for piece in pieces(said.text):
        yield {"type": "response.output_text.delta", "delta": piece, "logprobs": []} | where
    yield {"type": "response.output_text.done", "text": said.text, "logprobs": []} | where
    yield {"type": "response.content_part.done", "part": _text_part(said.text)} | where


def _call_events(said: Said, where: dict[str, Any]) -> Iterator[_Event]:
    kind = "response.function_call_arguments"
    for piece in pieces(said.text):
        yield {"type": f"{kind}.delta", "delta": piece} | where
    yield {"type": f"{kind}.done", "name": said.tool, "arguments": said.text} | where
