"""Real `openai` clients, of whichever version is installed, and what a caller sees of them."""

import importlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.stub_wishes import arrived, steer

__all__ = [
    "ASK",
    "ASKED",
    "FLAT_TOOL",
    "MODEL",
    "RESPONSE",
    "STREAMED",
    "TOOL",
    "WITH_USAGE",
    "Weather",
    "arrived",
    "canned",
    "events",
    "http",
    "make",
    "method",
    "seen",
    "seen_async",
    "shown",
    "steer",
]

MODEL = "gpt-4o-mini"
ASK: list[Any] = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "What does the café in Ávila cost?"},
]


class Weather(BaseModel):
    city: str
    days: int


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
FLAT_TOOL: Any = {"type": "function", "name": "get_weather", "parameters": SCHEMA}
ASKED: dict[str, Any] = {"model": MODEL, "messages": ASK}
STREAMED: dict[str, Any] = {**ASKED, "stream": True}
WITH_USAGE: dict[str, Any] = {**STREAMED, "stream_options": {"include_usage": True}}
RESPONSE: dict[str, Any] = {"model": MODEL, "input": "Hi", "instructions": "Be brief."}

# The HTTP library of the openai that is installed: 3.x has one of its own.
http: Any = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__)


def make(cls: type[OpenAI] | type[AsyncOpenAI], url: str, **options: Any) -> Any:
    """A client that does not retry, unless told so."""
    given = {"api_key": "stub", "max_retries": 0, "timeout": 30, **options}
    return cls(base_url=url, **given)


def canned(answer: Callable[[Mapping[str, Any]], Any], **options: Any) -> OpenAI:
    """A client whose server is this function: from the request's JSON to the answer.

    The answer is JSON, bytes (audio), text (a stream of events) or a whole HTTP response.
    """

    def handle(request: Any) -> Any:
        is_json = request.headers.get("content-type", "").startswith("application/json")
        given = answer(json.loads(request.content) if is_json else {})
        if isinstance(given, bytes):
            return http.Response(200, content=given, headers={"content-type": "audio/mpeg"})
        if isinstance(given, str):
            return http.Response(200, text=given, headers={"content-type": "text/event-stream"})
        return given if isinstance(given, http.Response) else http.Response(200, json=given)

    transport = openai.DefaultHttpxClient(transport=http.MockTransport(handle))
    return OpenAI(**{"api_key": "stub", "max_retries": 0, **options}, http_client=transport)


def events(*chunks: Mapping[str, Any]) -> str:
    """A stream of these, as `canned` answers it."""
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def seen(client: Any, path: str, **arguments: Any) -> list[Any]:
    """All that a caller sees of one call: the answer, every chunk, the error."""
    view: list[Any] = []
    try:
        answer = method(client, path)(**arguments)
        view.append(type(answer))
        if isinstance(answer, openai.Stream):
            view.extend(map(shown, answer))
        else:
            view.append(shown(answer))
    except Exception as exc:  # noqa: BLE001 - whatever it raises is what is seen
        view.append(_error(exc))
    return view


async def seen_async(client: Any, path: str, **arguments: Any) -> list[Any]:
    """The same of an `AsyncOpenAI`."""
    view: list[Any] = []
    try:
        answer = await method(client, path)(**arguments)
        view.append(type(answer))
        if isinstance(answer, openai.AsyncStream):
            async for chunk in answer:
                view.append(shown(chunk))  # noqa: PERF401 - what came before an error counts too
        else:
            view.append(shown(answer))
    except Exception as exc:  # noqa: BLE001 - whatever it raises is what is seen
        view.append(_error(exc))
    return view


def method(client: Any, path: str) -> Any:
    """The method of that name, `chat.completions.create` for example."""
    found = client
    for name in path.split("."):
        found = getattr(found, name)
    return found


def shown(value: Any) -> Any:
    """All that can be seen of an answer or a chunk."""
    if isinstance(value, BaseModel):
        # Parsed answers make pydantic warn about their types, wrapped or not.
        sent = value.model_dump(exclude_unset=True, warnings=False)
        return type(value), value.model_dump(warnings=False), sent, sorted(value.model_fields_set)
    return value


def _error(error: BaseException | None) -> Any:
    if error is None:
        return None
    about = [getattr(error, name, None) for name in ("status_code", "body", "code")]
    message = re.sub(r"scope [0-9a-f]+", "scope", str(error))
    return type(error), message, about, _error(error.__cause__), _error(error.__context__)
