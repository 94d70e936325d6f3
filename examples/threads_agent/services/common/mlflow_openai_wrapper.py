"""OpenAI with tracking. What goes wrong at MLflow reaches nobody here."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flowledger
from services.common.mlflow_tracking import as_persona

__all__ = ["chat_with_tracking", "stream_with_tracking", "tracked_client"]


def chat_with_tracking(model: str, prompt: str, persona_id: str) -> str:
    """Enhanced chat function with MLflow tracking."""
    with tracked_client(persona_id) as client:
        answer = client.chat.completions.create(model=model, messages=_asking(prompt))
    return answer.choices[0].message.content or ""


def stream_with_tracking(model: str, prompt: str, persona_id: str) -> Iterator[str]:
    """The answer piece by piece; recorded when it ends, with the time to its first piece."""
    with tracked_client(persona_id) as client:
        chunks = client.chat.completions.create(model=model, messages=_asking(prompt), stream=True)
    texts = (chunk.choices[0].delta.content for chunk in chunks if chunk.choices)
    return (text for text in texts if text)


@contextmanager
def tracked_client(persona_id: str) -> Iterator[Any]:
    """OpenAI's own client, whose calls, functions and batches too, are this persona's."""
    with as_persona(persona_id):
        yield _client_of(os.getpid())


@functools.lru_cache(maxsize=2)
def _client_of(pid: int) -> Any:
    """One for each process: a forked worker must not share its parent's connections."""
    import openai

    return flowledger.wrap(openai.OpenAI())


def _asking(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
