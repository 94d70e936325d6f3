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
        flowledger.record(
            operation="track_llm_call",
            persona_id=persona_id,
            model=model,
            prompt=prompt,
            response=response,
            input_tokens=prompt_tokens,
            output_tokens=completion_tokens,
            latency_ms=latency_ms,
        )
        logger.debug("%s asked %s: %s ms", persona_id, model, latency_ms)


def track_llm_call(
    persona_id: str, model: str
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Track every call of a coroutine that asks a model; tokens are counted where it tells none.

    Args:
        persona_id: for whom it asks.
        model: which model, when the answer does not say.
    """

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        tracked = flowledger.track_text(None, function.__name__, model=model)(function)

        @functools.wraps(function)
        async def in_persona(*args: P.args, **kwargs: P.kwargs) -> R:
            with as_persona(persona_id, model):
                answer: R = await tracked(*args, **kwargs)
                return answer

        return in_persona

    return decorate


@contextmanager
def as_persona(persona_id: str, model: str) -> Iterator[None]:
    """Calls of models made inside are this persona's."""
    with flowledger.context(persona_id=persona_id):
        yield
    logger.debug("%s asked %s", persona_id, model)
