"""How OpenAI's and Anthropic's protocols ask, answer and stream."""

import re
from collections.abc import Callable
from typing import Any, Protocol

from flowledger.capture.reading import field, message_text, read_usage
from flowledger.chat.steps import Complete, Reply
from flowledger.errors import ProviderError
from flowledger.records import Usage

__all__ = ["PROTOCOLS", "Gathering", "Speaks"]

# These take `max_completion_tokens`, and no temperature of the caller's.
_thinks = re.compile(r"(o\d|gpt-5(?!.*chat))")
CUT = "the answer broke off before its end"


class Gathering(Protocol):
    """A streamed answer as it comes in."""

    def add(self, chunk: Any) -> str:
        """The new text in a chunk, if any."""

    def reply(self) -> Reply:
        """The whole answer; raises `ProviderError` when its end never came."""


class Speaks(Protocol):
    """One protocol, for clients of its package, synchronous or not."""

    def create(self, client: Any) -> Callable[..., Any]:
        """The client's function that asks."""

    def arguments(self, model: str, step: Complete, stream: bool) -> dict[str, Any]:
        """What to ask it with."""

    def read(self, answer: Any) -> Reply:
        """What a whole answer says; raises `ProviderError` when it is none."""

    def gathering(self) -> Gathering:
        """Takes a streamed answer."""


class _OpenAI:
    def create(self, client: Any) -> Callable[..., Any]:
        create: Callable[..., Any] = client.chat.completions.create
        return create

    def arguments(self, model: str, step: Complete, stream: bool) -> dict[str, Any]:
        given: dict[str, Any] = {"model": model, "messages": list(step.messages)}
        if _thinks.match(model):
            given["max_completion_tokens"] = step.max_tokens
        else:
            given |= {"max_tokens": step.max_tokens, "temperature": step.temperature}
        if step.response_format is not None:
            given["response_format"] = step.response_format
        return {**given, "stream": True, "stream_options": USAGE_TOO} if stream else given

    def read(self, answer: Any) -> Reply:
        choices = field(answer, "choices")
        message = field(choices[0], "message") if isinstance(choices, list) and choices else None
        if message is None:
            raise ProviderError("the answer holds no message")
        return Reply(
            text=message_text(message) or "",
            reasoning=_thoughts(message),
            model=field(answer, "model"),
            usage=read_usage(field(answer, "usage")),
        )

    def gathering(self) -> Gathering:
        return _OpenAIStream()


USAGE_TOO = {"include_usage": True}


def _thoughts(message: Any) -> str:
    """As vLLM, DeepSeek and OpenRouter name what a model thought before it answered."""
    found = field(message, "reasoning_content", "reasoning")
    return found if isinstance(found, str) else ""


class _OpenAIStream:
    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._model: str | None = None
        self._usage: Usage | None = None
        self._ended = False

    def add(self, chunk: Any) -> str:
        self._model = field(chunk, "model") or self._model
        self._usage = read_usage(field(chunk, "usage")) or self._usage
        choices = field(chunk, "choices")
        if not choices:
            return ""
        self._ended = self._ended or field(choices[0], "finish_reason") is not None
        delta = field(choices[0], "delta")
        text = field(delta, "content", "refusal") or ""
        self._texts.append(text)
        self._thoughts.append(_thoughts(delta))
        return str(text)

    def reply(self) -> Reply:
        if not self._ended:
            raise ProviderError(CUT, begun=bool(self._texts))
        return Reply(
            text="".join(self._texts),
            reasoning="".join(self._thoughts),
            model=self._model,
            usage=self._usage,
        )


class _Anthropic:
    def create(self, client: Any) -> Callable[..., Any]:
        create: Callable[..., Any] = client.messages.create
        return create

    def arguments(self, model: str, step: Complete, stream: bool) -> dict[str, Any]:
        system = "\n\n".join(m["content"] for m in step.messages if m["role"] == "system")
        # Neither is an argument of its own in every version of the package that we work with.
        more: dict[str, Any] = {"temperature": min(1.0, step.temperature)}
        if step.response_format is not None:
            form = {"type": "json_schema", "schema": step.response_format["json_schema"]["schema"]}
            more["output_config"] = {"format": form}
        return {
            "model": model,
            "messages": [m for m in step.messages if m["role"] != "system"],
            "max_tokens": step.max_tokens,
            "extra_body": more,
            **({"system": system} if system else {}),
            "stream": stream,
        }

    def read(self, answer: Any) -> Reply:
        blocks = field(answer, "content")
        if not isinstance(blocks, list):
            raise ProviderError("the answer holds no message")
        return Reply(
            text="".join(field(b, "text") or "" for b in blocks if field(b, "type") == "text"),
            reasoning="".join(field(b, "thinking") or "" for b in blocks),
            model=field(answer, "model"),
            usage=_anthropic_usage(field(answer, "usage")),
        )

    def gathering(self) -> Gathering:
        return _AnthropicStream()


def _anthropic_usage(usage: Any) -> Usage | None:
    """Anthropic counts cached input beside the input, not in it."""
    fresh, out = field(usage, "input_tokens"), field(usage, "output_tokens")
    if not isinstance(fresh, int):
        return None
    read = field(usage, "cache_read_input_tokens") or 0
    written = field(usage, "cache_creation_input_tokens") or 0
    return Usage(
        input_tokens=fresh + read + written,
        output_tokens=out,
        cached_input_tokens=read or None,
        cache_write_tokens=written or None,
    )


class _AnthropicStream:
    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._model: str | None = None
        self._usage: dict[str, Any] = {}
        self._ended = False

    def add(self, chunk: Any) -> str:
        message, delta = field(chunk, "message"), field(chunk, "delta")
        self._model = field(message, "model") or self._model
        self._add_usage(field(message, "usage"))
        self._add_usage(field(chunk, "usage"))
        self._ended = self._ended or field(chunk, "type") == "message_stop"
        self._thoughts.append(field(delta, "thinking") or "")
        text = str(field(delta, "text") or "")
        self._texts.append(text)
        return text

    def _add_usage(self, usage: Any) -> None:
        for name in ANTHROPIC_USAGE:
            count = field(usage, name) if usage is not None else None
            if count is not None:
                self._usage[name] = count

    def reply(self) -> Reply:
        if not self._ended:
            raise ProviderError(CUT, begun=bool(self._texts))
        return Reply(
            text="".join(self._texts),
            reasoning="".join(self._thoughts),
            model=self._model,
            usage=_anthropic_usage(self._usage),
        )


ANTHROPIC_USAGE = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
PROTOCOLS: dict[str, Speaks] = {"openai": _OpenAI(), "anthropic": _Anthropic()}
