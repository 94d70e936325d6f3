"""Real `anthropic` clients, and what a caller sees of them."""

import importlib
import re
from collections.abc import Callable
from typing import Any

import anthropic
from anthropic import Anthropic, AsyncAnthropic
from pydantic import BaseModel

__all__ = [
    "ASK",
    "ASKED",
    "MODEL",
    "PNG",
    "TOOL",
    "Weather",
    "canned",
    "http",
    "make",
    "seen",
    "seen_async",
]

MODEL = "claude-sonnet-4-5"
ASK: list[Any] = [{"role": "user", "content": "What does the café in Ávila cost?"}]
ASKED: dict[str, Any] = {"model": MODEL, "max_tokens": 200, "messages": ASK}
# The HTTP library of the anthropic that is installed: 2.x has one of its own.
http: Any = importlib.import_module(anthropic.DefaultHttpxClient.__mro__[1].__module__)
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJg"
TOOL: Any = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}


class Weather(BaseModel):
    city: str
    days: int


def make(cls: type[Anthropic] | type[AsyncAnthropic], url: str, **options: Any) -> Any:
    """A client that does not retry, unless told so."""
    given = {"api_key": "stub", "max_retries": 0, "timeout": 30, **options}
    return cls(base_url=url, **given)


def canned(cls: Any, answer: Callable[[Any], Any], **options: Any) -> Any:
    """A client of this class whose server is this function."""
    transport = http.Client(transport=http.MockTransport(answer))
    return cls(**{"max_retries": 0, **options}, http_client=transport)


def seen(client: Any, path: str, **arguments: Any) -> list[Any]:
    """All that a caller sees of one call: the answer, every event, the error."""
    view: list[Any] = []
    try:
        answer = _method(client, path)(**arguments)
        view.append(type(answer))
        if hasattr(answer, "__enter__") and not hasattr(answer, "__next__"):
            with answer as stream:
                view.extend(map(_shown, stream))
                view.append(_shown(stream.get_final_message()))
        elif isinstance(answer, anthropic.Stream):
            view.extend(map(_shown, answer))
        else:
            view.append(_shown(answer))
    except Exception as exc:  # noqa: BLE001 - whatever it raises is what is seen
        view.append(_error(exc))
    return view


async def seen_async(client: Any, path: str, **arguments: Any) -> list[Any]:
    """The same of an `AsyncAnthropic`."""
    view: list[Any] = []
    try:
        answer = _method(client, path)(**arguments)
        if hasattr(answer, "__aenter__"):
            view.append(type(answer))
            async with answer as stream:
                view.extend([_shown(event) async for event in stream])
                view.append(_shown(await stream.get_final_message()))
            return view
        answer = await answer
        view.append(type(answer))
        if isinstance(answer, anthropic.AsyncStream):
            async for event in answer:
                view.append(_shown(event))  # noqa: PERF401 - what came before an error counts
        else:
            view.append(_shown(answer))
    except Exception as exc:  # noqa: BLE001 - whatever it raises is what is seen
        view.append(_error(exc))
    return view


def _method(client: Any, path: str) -> Any:
    found = client
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _shown(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return type(value), value.model_dump(warnings=False), sorted(value.model_fields_set)
    return value


def _error(error: BaseException | None) -> Any:
    if error is None:
        return None
    about = [getattr(error, name, None) for name in ("status_code", "body")]
    texts = [re.sub(r"req_\d+|scope [0-9a-f]+", "", str(text)) for text in (error, about)]
    return type(error), texts, _error(error.__cause__), _error(error.__context__)
