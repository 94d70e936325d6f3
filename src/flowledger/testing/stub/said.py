"""One request in, one answer out: what every endpoint of the stub shares."""

from collections.abc import Iterator
from typing import Any

import msgspec

from flowledger.testing.stub.answers import count, cut, prose
from flowledger.testing.stub.schemas import fitting
from flowledger.testing.stub.steering import Refusal, Steer

# Always the same, so that the same request gets the same bytes.
CREATED = 1_735_689_600
# OpenAI's numbers for one picture: low detail, and 1024x1024 in high detail.
_LOW_DETAIL, _HIGH_DETAIL = 85, 765
# Fields of the Responses API's items that no model reads.
_UNREAD = ("id", "type", "status")

# What `json_object` is answered with.
_ANY_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}}
# What a schema that is none can set off.
_ODD = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RecursionError)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request: its JSON or form fields, how it is steered, and a number of its own."""

    body: dict[str, Any]
    steer: Steer
    seed: int
    audio: bytes = b""

    @property
    def model(self) -> str:
        """The model's name without its marker."""
        return str(self.body["model"])

    def id(self, prefix: str) -> str:
        """An id that the same request gets again."""
        return f"{prefix}{self.seed:016x}"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What goes back: a body, or the events of a stream. `tokens` were generated for it.

    `broken` is an event of such a stream that is no JSON.
    """

    body: bytes = b""
    events: Iterator[bytes] | None = None
    media_type: str = "application/json"
    tokens: int = 0
    broken: bytes = b'data: {"id": "stub", "choices": [{"del\n\n'


class Tool(msgspec.Struct, frozen=True):
    """A function the model may call."""

    name: str
    parameters: Any


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the request leaves the model to say: a call of `tool`, JSON that fits, or prose."""

    tool: Tool | None = None
    schema: Any = None
    limit: int | None = None


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the model said: text, or the arguments of a call of `tool` as JSON text."""

    text: str
    tool: str | None = None
    complete: bool = True

    @property
    def tokens(self) -> int:
        """How many tokens it is, the function's name included."""
        return count(self.text) + (count(self.tool) if self.tool else 0)


def say(wanted: Wanted, ask: Ask, index: int = 0) -> Said:
    """What the model says as its choice number `index`."""
    seed = ask.seed + index
    if wanted.tool is not None:
        tool = wanted.tool
        return Said(text=_filled(tool.parameters, seed, f"function '{tool.name}'"), tool=tool.name)
    if wanted.schema is not None:
        text = _filled(wanted.schema, seed, "response_format")
    else:
        text = prose(seed, ask.steer.tokens)
    if wanted.limit is None or count(text) <= wanted.limit:
        return Said(text=text)
    return Said(text=cut(text, wanted.limit), complete=False)


def _filled(schema: Any, seed: int, what: str) -> str:
    try:
        return _json(fitting(schema, seed))
    except _ODD as exc:
        raise Refusal(400, f"Invalid schema for {what}: {exc!r}.", code="invalid_schema") from exc


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def encode(value: Any) -> bytes:
    """The value as JSON."""
    return msgspec.json.encode(value)


def event(value: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def prompt_tokens(messages: list[dict[str, Any]], *definitions: Any) -> int:
    """The messages' tokens as OpenAI's cookbook counts them, and the definitions' as JSON text.

    Source: "How to count tokens with tiktoken", OpenAI cookbook: three a message, one for a name,
    three for the answer's beginning. Definitions are the tools and the schema of the answer.
    """
    tokens = 3 + sum(3 + _message_tokens(message) for message in messages)
    return tokens + sum(count(_json(definition)) for definition in definitions if definition)


def _message_tokens(message: dict[str, Any]) -> int:
    tokens = 1 if "name" in message else 0
    for key, value in message.items():
        if isinstance(value, str) and key not in _UNREAD:
            tokens += count(value)
        elif isinstance(value, list):
            tokens += sum(_part_tokens(part) for part in value if isinstance(part, dict))
    return tokens


def _part_tokens(part: dict[str, Any]) -> int:
    """The tokens of a part of a message: text, a picture or a call of a tool."""
    if isinstance(part.get("text"), str):
        return count(part["text"])
    if isinstance(part.get("function"), dict):
        call = part["function"]
        return count(str(call.get("name", ""))) + count(str(call.get("arguments", "")))
    if part.get("type") in ("image_url", "input_image"):
        image = part.get("image_url")
        detail = image.get("detail") if isinstance(image, dict) else part.get("detail")
        return _LOW_DETAIL if detail == "low" else _HIGH_DETAIL
    return 0


def answer_schema(form: Any, of_schema: Any) -> Any:
    """What the answer has to fit: `of_schema` when `form` is `json_schema`; None for text."""
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_schema":
        schema = of_schema.get("schema") if isinstance(of_schema, dict) else None
        return schema or {"type": "object"}
    return _ANY_OBJECT if kind == "json_object" else None


def chosen_tool(tools: list[Tool], choice: Any, *, answered: bool) -> Tool | None:
    """The tool to call, if any: the one asked for by name, else the first."""
    if not tools or choice == "none" or answered:
        return None
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else choice.get("name")
        return next((tool for tool in tools if tool.name == name), tools[0])
    return tools[0]
