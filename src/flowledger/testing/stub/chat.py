"""Chat completions and the older text completions, plain and as a stream."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from flowledger.testing.stub import checks
from flowledger.testing.stub.answers import count, pieces
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
from flowledger.testing.stub.steering import Steer

_DONE = b"data: [DONE]\n\n"
# A step of a stream: what is new in a choice, and why it ended if it did.
_Step = tuple[dict[str, Any], str | None]


def chat(ask: Ask) -> Answer:
    """Answer POST /v1/chat/completions."""
    body = ask.body
    checks.check(body, "messages", checks.CHAT)
    checks.check_messages(body["messages"])
    checks.check_tools(body.get("tools") or [], nested=True)
    said = [say(_wanted(body), ask, index) for index in range(body.get("n") or 1)]
    prompt = prompt_tokens(body["messages"], body.get("tools"), _schema(body))
    usage = _usage(prompt, said, ask.steer)
    head = _head(ask, "chatcmpl-", "chat.completion")
    if body.get("stream"):
        events = _events(head | {"object": "chat.completion.chunk"}, ask, said, usage, _deltas)
        return _stream(events, usage)
    choices = [_choice(ask, index, one) for index, one in enumerate(said)]
    return _plain(head | {"choices": choices, "usage": usage})


def completions(ask: Ask) -> Answer:
    """Answer POST /v1/completions."""
    body = ask.body
    checks.check(body, "prompt", checks.COMPLETIONS)
    prompts = texts(body["prompt"])
    wanted = Wanted(limit=body.get("max_tokens") or (16 if ask.steer.tokens is None else None))
    said = [say(wanted, ask, index) for index in range(len(prompts) * (body.get("n") or 1))]
    usage = _usage(sum(map(text_tokens, prompts)), said, ask.steer)
    head = _head(ask, "cmpl-", "text_completion")
    if body.get("stream"):
        return _stream(_events(head, ask, said, usage, _text_steps), usage)
    choices = [
        {"index": index, "text": one.text, "logprobs": None, "finish_reason": _reason(one)}
        for index, one in enumerate(said)
    ]
    return _plain(head | {"choices": choices, "usage": usage})


def texts(value: Any) -> list[Any]:
    """The inputs of a request that takes one or several, as text or as tokens."""
    return value if isinstance(value, list) and not isinstance(value[0], int) else [value]


def text_tokens(value: str | list[int]) -> int:
    """How many tokens an input is; a list is tokens already."""
    return count(value) if isinstance(value, str) else len(value)


def _wanted(body: dict[str, Any]) -> Wanted:
    functions = [tool["function"] for tool in body.get("tools") or [] if tool["type"] == "function"]
    tools = [Tool(one["name"], one.get("parameters") or {"type": "object"}) for one in functions]
    answered = any(message["role"] in ("tool", "function") for message in body["messages"])
    return Wanted(
        tool=chosen_tool(tools, body.get("tool_choice"), answered=answered),
        schema=_schema(body),
        limit=body.get("max_completion_tokens") or body.get("max_tokens"),
    )


def _schema(body: dict[str, Any]) -> Any:
    form = body.get("response_format") or {}
    return answer_schema(form, form.get("json_schema"))


def _usage(prompt: int, said: list[Said], steer: Steer) -> dict[str, Any]:
    completion = sum(one.tokens for one in said) + steer.reasoning_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": min(steer.cached_tokens, prompt),
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": steer.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _head(ask: Ask, prefix: str, kind: str) -> dict[str, Any]:
    return {
        "id": ask.id(prefix),
        "object": kind,
        "created": CREATED,
        "model": ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_stub",
    }


def _plain(body: dict[str, Any]) -> Answer:
    return Answer(body=encode(body), tokens=body["usage"]["completion_tokens"])


def _stream(events: Iterator[bytes], usage: dict[str, Any]) -> Answer:
    return Answer(events=events, tokens=usage["completion_tokens"])


def _reason(said: Said) -> str:
    if said.tool is not None:
        return "tool_calls"
    return "stop" if said.complete else "length"


def _call(ask: Ask, index: int, said: Said) -> dict[str, Any]:
    function = {"name": said.tool, "arguments": said.text}
    return {"id": f"{ask.id('call_')}{index:02d}", "type": "function", "function": function}


def _choice(ask: Ask, index: int, said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None}
    if said.tool is not None:
        message |= {"content": None, "tool_calls": [_call(ask, index, said)]}
    else:
        message["annotations"] = []
    ending = {"logprobs": None, "finish_reason": _reason(said)}
    return {"index": index, "message": message} | ending


def _deltas(ask: Ask, index: int, said: Said) -> Iterator[_Step]:
    if said.tool is None:
        yield {"delta": {"role": "assistant", "content": "", "refusal": None}}, None
        for piece in pieces(said.text):
            yield {"delta": {"content": piece}}, None
    else:
        call = {"index": 0} | _call(ask, index, said)
        call["function"] = {"name": said.tool, "arguments": ""}
        yield {"delta": {"role": "assistant", "content": None, "tool_calls": [call]}}, None
        for piece in pieces(said.text):
            part = {"index": 0, "function": {"arguments": piece}}
            yield {"delta": {"tool_calls": [part]}}, None
    yield {"delta": {}}, _reason(said)


def _text_steps(_ask: Ask, _index: int, said: Said) -> Iterator[_Step]:
    for piece in pieces(said.text):
        yield {"text": piece}, None
    yield {"text": ""}, _reason(said)


def _events(
    head: dict[str, Any], ask: Ask, said: list[Said], usage: dict[str, Any], steps: Any
) -> Iterator[bytes]:
    """The events of a stream; several choices take turns, as OpenAI's do."""
    counted = bool((ask.body.get("stream_options") or {}).get("include_usage"))
    no_usage = {"usage": None} if counted else {}
    turns = zip_longest(*(steps(ask, index, one) for index, one in enumerate(said)))
    for turn in turns:
        for index, (new, reason) in ((i, step) for i, step in enumerate(turn) if step):
            choice = {"index": index, **new, "logprobs": None, "finish_reason": reason}
            yield event(head | {"choices": [choice]} | no_usage)
    if counted:
        yield event(head | {"choices": [], "usage": usage})
    yield _DONE
