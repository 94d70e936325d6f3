"""What is recorded of each endpoint of the OpenAI API: what was asked, and what the answer says.

Answers are read as the client's objects or as plain JSON. A stream is gathered into the form of a
whole answer, so that one function reads both.
"""

import functools
import json
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from flowledger.capture.content import plain
from flowledger.capture.reading import field, read_reply, read_usage
from flowledger.integrations.openai_parts import (
    ChoiceParts,
    EventParts,
    Parts,
    ResponseParts,
    TextParts,
)
from flowledger.records import Kind, Outcome, Usage

__all__ = ["ENDPOINTS", "Endpoint", "asked", "whole_body"]

Body = Mapping[str, Any]
Fields = dict[str, Any]

IMAGE_PARTS = ("image_url", "input_image")
TOOL_FIELDS = ("tools", "functions")
SECRET_FIELDS = ("api_key", "authorization", "headers", "credentials", "password", "secret")
BASE64_PER_FLOAT = 16 / 3


class Endpoint(NamedTuple):
    """How the calls of one endpoint are read.

    `prompt` names the body's fields that make the prompt, all others are settings. `asks_usage`
    says that a stream reports its usage only when `stream_options` ask for it.
    """

    operation: str
    kind: Callable[[Body], Kind]
    prompt: tuple[str, ...]
    read: Callable[[Any], Fields]
    parts: Callable[[], Parts]
    asks_usage: bool = False


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


def _always(kind: Kind) -> Callable[[Body], Kind]:
    return lambda body: kind


def _chat_or_vision(body: Body) -> Kind:
    messages = body.get("messages") or body.get("input")
    seen = isinstance(messages, list) and any(map(_shows_image, messages))
    return Kind.VISION if seen else Kind.CHAT


def _shows_image(message: Any) -> bool:
    content = field(message, "content")
    return isinstance(content, list) and any(field(p, "type") in IMAGE_PARTS for p in content)


def _read_text(answer: Any) -> Fields:
    """Chat, text completions and responses."""
    reading = read_reply(answer)
    reason = _finish_reason(answer)
    return {
        "response": reading.response,
        "model": reading.model,
        "usage": reading.usage,
        "tool_calls": reading.tool_calls,
        "params": {"finish_reason": reason} if reason else {},
    }


def _finish_reason(answer: Any) -> str:
    """Why it ended: a reason for each choice where they differ, or the status of a response."""
    if isinstance(choices := field(answer, "choices"), list):
        return ", ".join(dict.fromkeys(filter(None, (field(c, "finish_reason") for c in choices))))
    reason = field(field(answer, "incomplete_details"), "reason") or field(answer, "status")
    return reason if isinstance(reason, str) else ""


def _read_response(answer: Any) -> Fields:
    """A response, which may have failed although its request did not."""
    fields = _read_text(answer)
    if field(answer, "status") != "failed":
        return fields
    error = field(answer, "error")
    name, message = field(error, "code") or "ResponseFailed", field(error, "message")
    failed = Outcome(success=False, error_type=str(name), message=message and str(message))
    return {**fields, "outcome": failed}


def _read_embeddings(answer: Any) -> Fields:
    vectors = [field(item, "embedding") for item in field(answer, "data") or ()]
    dimensions = _dimensions(vectors[0]) if vectors else 0
    return {
        "response": {"count": len(vectors), "dimensions": dimensions},
        "model": field(answer, "model"),
        "usage": read_usage(field(answer, "usage")),
    }


def _dimensions(vector: Any) -> int:
    """How long a vector is: numbers, or base64 of 32-bit floats."""
    if isinstance(vector, str):
        return int(len(vector.rstrip("=")) / BASE64_PER_FLOAT)
    return len(vector)


def _read_images(answer: Any) -> Fields:
    images = field(answer, "data") or ()
    usage = read_usage(field(answer, "usage")) or Usage()
    told = {name: field(answer, name) for name in ("size", "quality", "output_format")}
    return {
        "response": [_image(image) for image in images],
        "model": field(answer, "model"),
        "usage": msgspec.structs.replace(usage, images=len(images)),
        "settings": {name: value for name, value in told.items() if value is not None},
    }


def _image(image: Any) -> Fields:
    """A picture by its type, size and hash; where it is, when it is kept elsewhere."""
    data = field(image, "b64_json")
    about = {
        "image": None if data is None else plain(b64decode(data)),
        "url": field(image, "url"),
        "revised_prompt": field(image, "revised_prompt"),
    }
    return {name: value for name, value in about.items() if value is not None}


def _read_transcript(answer: Any) -> Fields:
    usage = field(answer, "usage")
    seconds = field(usage, "seconds") or field(answer, "duration")
    counted = read_usage(usage) or Usage()
    return {
        "response": answer if isinstance(answer, str) else field(answer, "text"),
        "usage": msgspec.structs.replace(counted, seconds=None if not seconds else float(seconds)),
    }


def _read_speech(answer: Any) -> Fields:
    data = answer if isinstance(answer, bytes) else field(answer, "content")
    return {"response": plain(data) if isinstance(data, bytes) else None}


ENDPOINTS = {
    "chat/completions": Endpoint(
        "chat.completions", _chat_or_vision, ("messages",), _read_text, ChoiceParts, True
    ),
    "completions": Endpoint(
        "completions", _always(Kind.COMPLETION), ("prompt", "suffix"), _read_text, TextParts, True
    ),
    "responses": Endpoint(
        "responses",
        _chat_or_vision,
        ("input", "instructions", "prompt"),
        _read_response,
        ResponseParts,
    ),
    "embeddings": Endpoint(
        "embeddings", _always(Kind.EMBEDDING), ("input",), _read_embeddings, EventParts
    ),
    "images/generations": Endpoint(
        "images.generate", _always(Kind.IMAGE), ("prompt",), _read_images, EventParts
    ),
    "images/edits": Endpoint(
        "images.edit", _always(Kind.IMAGE), ("prompt",), _read_images, EventParts
    ),
    "audio/transcriptions": Endpoint(
        "audio.transcriptions", _always(Kind.SPEECH), ("prompt",), _read_transcript, EventParts
    ),
    "audio/translations": Endpoint(
        "audio.translations", _always(Kind.SPEECH), ("prompt",), _read_transcript, EventParts
    ),
    "audio/speech": Endpoint(
        "audio.speech", _always(Kind.SPEECH), ("input", "instructions"), _read_speech, EventParts
    ),
}
