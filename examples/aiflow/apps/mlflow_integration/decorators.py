"""The five decorators: flowledger's, with the time an operation took as `execution_time`."""

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import flowledger
from flowledger.config import switched_on

F = TypeVar("F", bound=Callable[..., Any])


def track_gpt_vision(feature: str, operation: str = "image_analysis") -> Callable[[F], F]:
    """Track a function that shows GPT an image: model, time, tokens, cost, outcome."""
    return _tracking(flowledger.track_vision, feature, operation, provider="openai")


def track_gpt_text(feature: str, operation: str = "text_generation") -> Callable[[F], F]:
    """Track a function that has GPT write: model and its settings, tokens, confidence."""
    return _tracking(flowledger.track_text, feature, operation, provider="openai")


def track_dalle_generation(feature: str, operation: str = "image_generation") -> Callable[[F], F]:
    """Track a function that has DALL-E draw: time, cost, the prompt and its settings."""
    return _tracking(flowledger.track_image, feature, operation, provider="openai")


def track_rag_operation(feature: str, operation: str = "retrieval") -> Callable[[F], F]:
    """Track a function that looks documents up: how many, how similar."""
    return _tracking(flowledger.track_rag, feature, operation)


def track_custom_operation(feature: str, operation: str) -> Callable[[F], F]:
    """Track any function: every number that it returns is a metric."""
    return _tracking(flowledger.track_custom, feature, operation)


def _tracking(track: Any, feature: str, operation: str, **more: Any) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        if not switched_on():
            return function
        tracked: F = track(feature, operation, **more)(_timed(function))
        return tracked

    return decorate


def _timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose seconds become a metric; a generator's are its latency only."""

    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        with _clock():
            return function(*args, **kwargs)

    @functools.wraps(function)
    async def timed_coroutine(*args: Any, **kwargs: Any) -> Any:
        with _clock():
            return await function(*args, **kwargs)

    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return function
    return timed_coroutine if inspect.iscoroutinefunction(function) else timed


@contextmanager
def _clock() -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        flowledger.log_metric("execution_time", time.perf_counter() - started)
