"""What the endpoints of the providers' APIs have in common: how a request is read.

Answers are read as the client's objects or as plain JSON. A stream is gathered into the form of a
whole answer, so that one function reads both.
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from flowledger.capture.reading import field
from flowledger.integrations.sdk_parts import Parts
from flowledger.records import Kind, ToolCall

__all__ = ["Body", "Endpoint", "Fields", "always", "asked", "no_results", "whole_body"]

Body: TypeAlias = Mapping[str, Any]
Fields: TypeAlias = dict[str, Any]

TOOL_FIELDS = ("tools", "functions")
SECRET_FIELDS = ("api_key", "authorization", "headers", "credentials", "password", "secret")


def no_results(body: Body) -> list[ToolCall]:
    """For endpoints whose requests carry no results of tools."""
    return []


class Endpoint(NamedTuple):
    """How the calls of one endpoint are read.

    `prompt` names the body's fields that make the prompt, all others are settings. `asks_usage`
    says that a stream reports its usage only when `stream_options` ask for it. `results` finds the
    tools that ran since the model's last answer, with what the request says they returned.
    """

    operation: str
    kind: Callable[[Body], Kind]
    prompt: tuple[str, ...]
    read: Callable[[Any], Fields]
    parts: Callable[[], Parts]
    asks_usage: bool = False
    results: Callable[[Body], list[ToolCall]] = no_results


def asked(endpoint: Endpoint, body: Body) -> Fields:
    """The fields of a `Call` that the request's body tells."""
    settings = {
        name: _setting(name, value)
        for name, value in body.items()
        if name not in endpoint.prompt and name != "model"
    }
    model = body.get("model")
    return {
        "operation": endpoint.operation,
        "kind": str(endpoint.kind(body)),
        "prompt": _prompt(endpoint.prompt, body),
        "settings": settings,
        "model_asked": None if model is None else str(model),
    }


def whole_body(response: Any) -> Any:
    """The body of an HTTP response: its JSON, its text or its bytes.

    Args:
        response: an `httpx` response, whichever `httpx` the client uses.

    Raises:
        RuntimeError: the body was not read, or is a stream of events.
    """
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if media_type.endswith("json"):
        return json.loads(response.content)
    if media_type == "text/event-stream":
        raise RuntimeError("a stream of events")
    return response.text if media_type.startswith("text/") else response.content


def always(kind: Kind) -> Callable[[Body], Kind]:
    """For endpoints that do one thing."""
    return lambda body: kind


def _prompt(names: tuple[str, ...], body: Body) -> Any:
    """The prompt's first field, or all of them by name when more than it are given."""
    given = {name: body[name] for name in names if body.get(name) is not None}
    return given if given.keys() - {names[0]} else given.get(names[0])


def _setting(name: str, value: Any) -> Any:
    if name in TOOL_FIELDS and isinstance(value, Iterable):
        return [_tool_name(tool) for tool in value]
    return "***" if _is_secret(name) else value


@functools.lru_cache(maxsize=1000)
def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_FIELDS)


def _tool_name(tool: Any) -> str:
    inner = field(tool, "function", "custom") or tool
    return str(field(inner, "name", "server_label", "type"))
