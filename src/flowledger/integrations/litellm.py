"""Recording the calls of LiteLLM's functions: `litellm.completion` and its kin.

LiteLLM's own callbacks run in other threads after the answer, and never for a stream that is left;
so its functions are replaced, and the `__next__` of its streams. Who has taken a function out of
`litellm` before that keeps the plain one.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from flowledger.capture import recorder
from flowledger.capture.reading import field
from flowledger.integrations import nesting
from flowledger.integrations.openai_parts import ChoiceParts
from flowledger.integrations.openai_reading import ENDPOINTS
from flowledger.integrations.sdk import caller
from flowledger.integrations.sdk_call import Recording, never_raises
from flowledger.integrations.sdk_endpoints import Endpoint, Fields
from flowledger.integrations.sdk_stream import Watch

__all__ = ["wrap_litellm"]

FUNCTIONS = {
    "completion": "chat/completions",
    "text_completion": "completions",
    "responses": "responses",
    "embedding": "embeddings",
    "image_generation": "images/generations",
    "transcription": "audio/transcriptions",
    "speech": "audio/speech",
}
# Objects that LiteLLM is handed, and no part of what is asked.
NOT_ASKED = ("client", "shared_session", "logger_fn", "litellm_logging_obj")
WATCH = "_flowledger"


class _Parts(ChoiceParts):
    """The chunks of LiteLLM's streams, which keep provider and usage where no caller looks."""

    provider: str | None = None

    def saw(self, chunk: Any) -> bool:
        usage = field(field(chunk, "_hidden_params"), "usage")
        if field(usage, "total_tokens"):
            self._usage = usage
        return super().saw(chunk)

    def answer(self) -> Any:
        return {**super().answer(), "_hidden_params": {"custom_llm_provider": self.provider}}


def wrap_litellm(module: ModuleType) -> bool:
    """Record every call of LiteLLM's functions from now on, once however often it is wrapped.

    `provider` is LiteLLM's name for who answered. An answer from LiteLLM's cache costs nothing.

    Args:
        module: `litellm`.

    Returns:
        True: the module is known by its name.
    """
    for name, path in FUNCTIONS.items():
        for function in (name, f"a{name}"):
            plain = getattr(module, function, None)
            if plain is not None and not hasattr(plain, "records_calls"):
                setattr(module, function, _recorded(plain, _endpoint(path)))
    return True


def _endpoint(path: str) -> Endpoint:
    endpoint = ENDPOINTS[path]

    def read(answer: Any) -> Fields:
        hidden = field(answer, "_hidden_params") or {}
        fields = endpoint.read(answer)
        provider = field(hidden, "custom_llm_provider")
        if isinstance(provider, str):
            fields["provider"] = provider
        if field(hidden, "cache_hit"):
            fields |= {"cost_usd": 0.0, "params": {**fields.get("params", {}), "cache_hit": True}}
        return fields

    parts = _Parts if endpoint.parts is ChoiceParts else endpoint.parts
    return endpoint._replace(read=read, parts=parts)


def _recorded(plain: Callable[..., Any], endpoint: Endpoint) -> Callable[..., Any]:
    names = tuple(inspect.signature(plain).parameters)

    def begun(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Recording | None:
        return _begin(endpoint, {**dict(zip(names, args, strict=False)), **kwargs})

    @functools.wraps(plain)
    def function(*args: Any, **kwargs: Any) -> Any:
        call = begun(args, kwargs)
        if call is None:
            return plain(*args, **kwargs)
        try:
            with nesting.covering():
                answer = plain(*args, **kwargs)
        except BaseException as exc:
            call.failed(exc)
            raise
        _follow(answer, call)
        return answer

    @functools.wraps(plain)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        call = begun(args, kwargs)
        if call is None:
            return await plain(*args, **kwargs)
        try:
            with nesting.covering():
                answer = await plain(*args, **kwargs)
        except BaseException as exc:
            call.failed(exc)
            raise
        _follow(answer, call)
        return answer

    chosen: Callable[..., Any] = coroutine if inspect.iscoroutinefunction(plain) else function
    vars(chosen)["records_calls"] = True
    return chosen


@never_raises
def _begin(endpoint: Endpoint, given: Mapping[str, Any]) -> Recording | None:
    if recorder.active() is None or nesting.covered():
        return None
    body = {
        name: value for name, value in given.items() if name not in NOT_ASKED and value is not None
    }
    prefix, slash, _ = str(body.get("model")).partition("/")
    provider = body.get("custom_llm_provider") or (prefix if slash else None)
    key = body.get("api_key")
    secrets = [key] if isinstance(key, str) else []
    about = {"provider": provider, "function": caller("litellm")}
    return Recording(endpoint, body, about, lambda: secrets)


@never_raises
def _follow(answer: Any, call: Recording) -> None:
    """Record what came, or what comes when it is a stream."""
    cls = type(answer)
    if not (hasattr(cls, "__next__") or hasattr(cls, "__anext__")):
        call.answered(answer)
        return
    parts = call.endpoint.parts()
    if isinstance(parts, _Parts):
        parts.provider = field(answer, "custom_llm_provider")
    watch = Watch(call, parts, hides_usage=False)
    watch.until_forgotten(answer)
    vars(answer)[WATCH] = watch
    for name in ("__next__", "__anext__"):
        step = getattr(cls, name, None)
        if step is not None and not hasattr(step, "records_calls"):
            setattr(cls, name, _watched(step))


def _watched(step: Any) -> Any:
    """A class's `__next__` or `__anext__` that shows each chunk to the stream's own watch."""

    @functools.wraps(step)
    def following(stream: Any) -> Any:
        watch: Watch | None = vars(stream).get(WATCH)
        if watch is None:
            return step(stream)
        try:
            chunk = step(stream)
        except BaseException as exc:
            watch.ended(exc)
            raise
        watch.shows(chunk)
        return chunk

    @functools.wraps(step)
    async def following_async(stream: Any) -> Any:
        watch: Watch | None = vars(stream).get(WATCH)
        if watch is None:
            return await step(stream)
        try:
            chunk = await step(stream)
        except BaseException as exc:
            watch.ended(exc)
            raise
        watch.shows(chunk)
        return chunk

    chosen: Any = following_async if inspect.iscoroutinefunction(step) else following
    chosen.records_calls = True
    return chosen
