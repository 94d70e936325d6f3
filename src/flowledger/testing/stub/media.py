"""Embeddings, images, transcriptions and the list of models."""

import base64
import math
import re
from typing import Any

from flowledger.testing.stub import checks
from flowledger.testing.stub.answers import count, png, prose, seconds_of, vector
from flowledger.testing.stub.chat import text_tokens, texts
from flowledger.testing.stub.said import CREATED, Answer, Ask, encode
from flowledger.testing.stub.steering import Refusal

MODELS = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1-mini",
    "gpt-5-mini",
    "gpt-3.5-turbo-instruct",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "gpt-image-1",
    "dall-e-3",
    "whisper-1",
    "gpt-4o-transcribe",
)
_DIMENSIONS = {"text-embedding-3-large": 3072}
# Source: OpenAI's table of gpt-image-1's output tokens.
_IMAGE_TOKENS = {
    "low": {"1024x1024": 272, "1024x1536": 408, "1536x1024": 400},
    "medium": {"1024x1024": 1056, "1024x1536": 1584, "1536x1024": 1568},
    "high": {"1024x1024": 4160, "1024x1536": 6240, "1536x1024": 6208},
}
# What gpt-4o-transcribe counts for a second of audio, about.
_AUDIO_TOKENS_A_SECOND = 10


def embeddings(ask: Ask) -> Answer:
    """Answer POST /v1/embeddings."""
    body = ask.body
    checks.check(body, "input", checks.EMBEDDINGS)
    inputs = texts(body["input"])
    if "" in inputs:
        raise Refusal(400, "'$.input' is invalid. Please check the API reference.")
    dimensions = body.get("dimensions") or _DIMENSIONS.get(ask.model, 1536)
    form = body.get("encoding_format") or "float"
    data = [_embedding(one, dimensions, form, index) for index, one in enumerate(inputs)]
    tokens = sum(map(text_tokens, inputs))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": ask.model, "usage": usage}
    return Answer(body=encode(answer))


def _embedding(text: Any, dimensions: int, form: str, index: int) -> dict[str, Any]:
    features = re.findall(r"\w+", text.lower()) if isinstance(text, str) else map(str, text)
    values = vector(list(features) or [str(text)], dimensions)
    packed = base64.b64encode(values.tobytes()).decode()
    coded = packed if form == "base64" else values.tolist()
    return {"object": "embedding", "index": index, "embedding": coded}


def images(ask: Ask) -> Answer:
    """Answer POST /v1/images/generations."""
    body = ask.body
    checks.check({"model": "dall-e-2"} | body, "prompt", checks.IMAGES)
    if body.get("stream"):
        raise Refusal(400, "The stub does not stream images.", param="stream")
    if str(body.get("model")).startswith("gpt-image"):
        return Answer(body=encode(_gpt_image(ask)))
    form = body.get("response_format") or "url"
    return Answer(body=encode({"created": CREATED, "data": _pictures(ask, form)}))


def _pictures(ask: Ask, form: str) -> list[dict[str, Any]]:
    pictures = [png(ask.seed + index) for index in range(ask.body.get("n") or 1)]
    if form == "b64_json":
        return [{"b64_json": picture} for picture in pictures]
    return [{"url": f"data:image/png;base64,{picture}"} for picture in pictures]


def _gpt_image(ask: Ask) -> dict[str, Any]:
    body = ask.body
    size = _unless_auto(body.get("size"), "1024x1024")
    quality = _unless_auto(body.get("quality"), "medium")
    pictures = _pictures(ask, "b64_json")
    text = count(body["prompt"])
    each = _IMAGE_TOKENS.get(quality, {}).get(size, _IMAGE_TOKENS["medium"]["1024x1024"])
    return {
        "created": CREATED,
        "background": _unless_auto(body.get("background"), "opaque"),
        "data": pictures,
        "output_format": "png",
        "quality": quality,
        "size": size,
        "usage": _image_usage(text, each * len(pictures)),
    }


def _image_usage(text: int, image: int) -> dict[str, Any]:
    return {
        "input_tokens": text,
        "input_tokens_details": {"text_tokens": text, "image_tokens": 0},
        "output_tokens": image,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": image},
        "total_tokens": text + image,
    }


def _unless_auto(value: str | None, default: str) -> str:
    return default if value in (None, "auto") else str(value)


def transcriptions(ask: Ask) -> Answer:
    """Answer POST /v1/audio/transcriptions."""
    body = ask.body
    # The other fields of a form are text, whatever they mean.
    checks.check({"model": body.get("model")}, None, {})
    if not ask.audio:
        raise checks.missing("file")
    if body.get("stream") == "true":
        raise Refusal(400, "The stub does not stream transcriptions.", param="stream")
    text, seconds = prose(ask.seed, ask.steer.tokens), seconds_of(ask.audio)
    match body.get("response_format", "json"):
        case "text":
            return Answer(body=text.encode() + b"\n", media_type="text/plain")
        case "verbose_json":
            return Answer(body=encode(_verbose(text, seconds)))
        case "json":
            usage = _transcription_usage(ask, text, seconds)
            return Answer(body=encode({"text": text, "usage": usage}))
    message = "The stub answers response_format 'json', 'verbose_json' and 'text'."
    raise Refusal(400, message, param="response_format", code="invalid_value")


def _by_duration(seconds: float) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(seconds)}


def _transcription_usage(ask: Ask, text: str, seconds: float) -> dict[str, Any]:
    if ask.model.startswith("whisper"):
        return _by_duration(seconds)
    audio, hint = math.ceil(seconds * _AUDIO_TOKENS_A_SECOND), count(ask.body.get("prompt", ""))
    said = count(text)
    return {
        "type": "tokens",
        "input_tokens": audio + hint,
        "input_token_details": {"audio_tokens": audio, "text_tokens": hint},
        "output_tokens": said,
        "total_tokens": audio + hint + said,
    }


def _verbose(text: str, seconds: float) -> dict[str, Any]:
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": seconds,
        "text": text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": -0.2,
        "compression_ratio": 1.2,
        "no_speech_prob": 0.01,
    }
    head = {"task": "transcribe", "language": "english", "duration": seconds, "text": text}
    return head | {"segments": [segment], "usage": _by_duration(seconds)}


def models() -> dict[str, Any]:
    """The answer to GET /v1/models."""
    return {"object": "list", "data": [model(name) for name in MODELS]}


def model(name: str) -> dict[str, Any]:
    """The answer to GET /v1/models/{name}; every name is a model here."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "flowledger-stub"}
