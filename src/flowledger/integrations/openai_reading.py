"""What is recorded of each endpoint of the OpenAI API: what was asked, and what the answer says."""

from base64 import b64decode
from typing import Any

import msgspec

from flowledger.capture.content import plain
from flowledger.capture.reading import field, read_reply, read_usage
from flowledger.integrations.openai_parts import ChoiceParts, EventParts, ResponseParts, TextParts
from flowledger.integrations.openai_tools import chat_results, response_results
from flowledger.integrations.sdk_endpoints import Body, Endpoint, Fields, always
from flowledger.records import Kind, Outcome, Usage

__all__ = ["ENDPOINTS"]

IMAGE_PARTS = ("image_url", "input_image")
BASE64_PER_FLOAT = 16 / 3


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
        "chat.completions",
        _chat_or_vision,
        ("messages",),
        _read_text,
        ChoiceParts,
        asks_usage=True,
        results=chat_results,
    ),
    "completions": Endpoint(
        "completions", always(Kind.COMPLETION), ("prompt", "suffix"), _read_text, TextParts, True
    ),
    "responses": Endpoint(
        "responses",
        _chat_or_vision,
        ("input", "instructions", "prompt"),
        _read_response,
        ResponseParts,
        results=response_results,
    ),
    "embeddings": Endpoint(
        "embeddings", always(Kind.EMBEDDING), ("input",), _read_embeddings, EventParts
    ),
    "images/generations": Endpoint(
        "images.generate", always(Kind.IMAGE), ("prompt",), _read_images, EventParts
    ),
    "images/edits": Endpoint(
        "images.edit", always(Kind.IMAGE), ("prompt",), _read_images, EventParts
    ),
    "images/variations": Endpoint(
        "images.variation", always(Kind.IMAGE), ("prompt",), _read_images, EventParts
    ),
    "audio/transcriptions": Endpoint(
        "audio.transcriptions", always(Kind.SPEECH), ("prompt",), _read_transcript, EventParts
    ),
    "audio/translations": Endpoint(
        "audio.translations", always(Kind.SPEECH), ("prompt",), _read_transcript, EventParts
    ),
    "audio/speech": Endpoint(
        "audio.speech", always(Kind.SPEECH), ("input", "instructions"), _read_speech, EventParts
    ),
}
