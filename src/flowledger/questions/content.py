"""What was asked and answered, read back from where the store put it."""

from typing import Any

import msgspec

from flowledger.questions.rows import Content
from flowledger.records import ToolCall

__all__ = ["of_ledger", "of_span"]

INPUTS, OUTPUTS = "mlflow.spanInputs", "mlflow.spanOutputs"
TOOL_RESULTS = "flowledger.toolResults"


def of_ledger(text: str) -> Content:
    """The content a ledger row keeps itself."""
    try:
        return msgspec.json.decode(text, type=Content)
    except msgspec.DecodeError:
        return Content(response=text)


def of_span(text: str) -> Content:
    """The content of a call's trace: the inverse of what the store made of it."""
    try:
        span = msgspec.json.decode(text)
        attributes = span["attributes"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return Content(response=text)
    response, tool_calls = _answer(_decoded(attributes.get(OUTPUTS)))
    return Content(
        prompt=_asked(_decoded(attributes.get(INPUTS))),
        response=response,
        tool_calls=[*_ran(_decoded(attributes.get(TOOL_RESULTS))), *tool_calls],
        stack=_stack(span.get("events") or []),
    )


def _decoded(text: Any) -> Any:
    """A span's attributes are JSON texts of their own."""
    try:
        return msgspec.json.decode(text) if isinstance(text, str) else text
    except msgspec.DecodeError:
        return text


def _asked(inputs: Any) -> Any:
    for wrapping in ("messages", "prompt"):
        if isinstance(inputs, dict) and inputs.keys() == {wrapping}:
            return inputs[wrapping]
    return inputs


def _answer(outputs: Any) -> tuple[Any, list[ToolCall]]:
    if not isinstance(outputs, dict) or outputs.keys() not in ({"choices"}, {"response"}):
        return outputs, []
    if "response" in outputs:
        return outputs["response"], []
    try:
        message = outputs["choices"][0]["message"]
        return message.get("content"), [_tool_call(one) for one in message.get("tool_calls", ())]
    except (LookupError, TypeError, AttributeError):
        return outputs, []


def _ran(results: Any) -> list[ToolCall]:
    try:
        return msgspec.convert(results or [], list[ToolCall])
    except msgspec.ValidationError:
        return []


def _tool_call(call: dict[str, Any]) -> ToolCall:
    function = call["function"]
    return ToolCall(name=function["name"], id=call.get("id"), arguments=function.get("arguments"))


def _stack(events: list[dict[str, Any]]) -> str | None:
    stacks = (event.get("attributes", {}).get("exception.stacktrace") for event in events)
    return next(filter(None, stacks), None)
