"""The tracker: one method for calls made elsewhere, one decorator for coroutines that make them."""

import functools
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import flowledger
from services.common.mlflow_config import configure

__all__ = ["MLflowExperimentTracker", "as_persona", "track_llm_call"]

P = ParamSpec("P")
R = TypeVar("R")
Asking = Callable[P, Awaitable[R]]

logger = logging.getLogger(__name__)
configure()


class MLflowExperimentTracker:
    """Keeps calls in the experiment of their persona and day. Never raises, never waits."""

    def track_llm_call(
        self,
        persona_id: str,
        model: str,
        prompt: str,
        response: str,
        prompt_tokens: int,
        completion_tokens: int,
        latency_ms: int,
    ) -> None:
        """Track a single LLM API call to MLflow."""
        with as_persona(persona_id):
            flowledger.record(
                operation="track_llm_call",
                model=model,
                prompt=prompt,
                response=response,
                input_tokens=prompt_tokens,
                output_tokens=completion_tokens,
                latency_ms=latency_ms,
            )


def track_llm_call(persona_id: str, model: str) -> Callable[[Asking[P, R]], Asking[P, R]]:
    """Track every call of a coroutine that asks a model; tokens it does not tell are counted."""

    def decorate(function: Asking[P, R]) -> Asking[P, R]:
        tracked: Asking[P, R] = flowledger.track_text(None, model=model)(function)

        @functools.wraps(function)
        async def in_persona(*args: P.args, **kwargs: P.kwargs) -> R:
            with as_persona(persona_id):
                return await tracked(*args, **kwargs)

        return in_persona

    return decorate


@contextmanager
def as_persona(persona_id: str) -> Iterator[None]:
    """Calls of models made inside are this persona's."""
    with flowledger.context(persona_id=persona_id):
        yield
    logger.debug("a call for %s is tracked", persona_id)
