"""OpenAI with tracking: whole answers, streams, functions and batches.

Each takes the persona it is for. What goes wrong at MLflow reaches nobody here; what goes wrong at
OpenAI is recorded and raised as before.
"""

import functools
import io
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import flowledger
from services.common.mlflow_tracking import as_persona

__all__ = [
    "batch_results",
    "call_functions_with_tracking",
    "chat_with_tracking",
    "stream_with_tracking",
    "submit_batch_with_tracking",
]

COMPLETIONS = "/v1/chat/completions"


def chat_with_tracking(model: str, prompt: str, persona_id: str) -> str:
    """Enhanced chat function with MLflow tracking."""
    with as_persona(persona_id, model):
        answer = _client().chat.completions.create(model=model, messages=_messages(prompt))
    return answer.choices[0].message.content or ""


def stream_with_tracking(model: str, prompt: str, persona_id: str) -> Iterator[str]:
    """The answer piece by piece; recorded when it ends, with the time to its first piece."""
    with as_persona(persona_id, model):
        chunks = _client().chat.completions.create(
            model=model, messages=_messages(prompt), stream=True
        )
    return _pieces(chunks)


def call_functions_with_tracking(
    model: str, prompt: str, persona_id: str, tools: Sequence[dict[str, Any]]
) -> list[tuple[str, dict[str, Any]]]:
    """The functions that the model wants called, by name, with their arguments."""
    with as_persona(persona_id, model):
        answer = _client().chat.completions.create(
            model=model, messages=_messages(prompt), tools=tools
        )
    asked = answer.choices[0].message.tool_calls or ()
    return [(one.function.name, json.loads(one.function.arguments)) for one in asked]


def submit_batch_with_tracking(model: str, prompts: Sequence[str], persona_id: str) -> str:
    """Have these answered at half the price within a day; the id of the batch."""
    requests = (
        {
            "custom_id": f"{persona_id}-{number}",
            "method": "POST",
            "url": COMPLETIONS,
            "body": {"model": model, "messages": _messages(prompt)},
        }
        for number, prompt in enumerate(prompts)
    )
    lines = io.BytesIO("\n".join(map(json.dumps, requests)).encode())
    lines.name = "batch.jsonl"
    with as_persona(persona_id, model):
        file = _client().files.create(file=lines, purpose="batch")
        batch = _client().batches.create(
            input_file_id=file.id, endpoint=COMPLETIONS, completion_window="24h"
        )
    return str(batch.id)


def batch_results(batch_id: str) -> list[str] | None:
    """The answers of a batch, recorded once they are fetched; None while it is not done."""
    batch = _client().batches.retrieve(batch_id)
    if batch.output_file_id is None:
        return None
    lines = _client().files.content(batch.output_file_id).text.splitlines()
    answers = {one["custom_id"]: one["response"]["body"] for one in map(json.loads, lines)}
    in_order = sorted(answers, key=lambda name: int(name.rpartition("-")[2]))
    return [answers[name]["choices"][0]["message"]["content"] for name in in_order]


def _pieces(chunks: Iterator[Any]) -> Iterator[str]:
    for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


def _client() -> Any:
    return _client_of(os.getpid())


@functools.lru_cache(maxsize=2)
def _client_of(pid: int) -> Any:
    """One for each process: a forked worker must not share its parent's connections."""
    import openai

    return flowledger.wrap(openai.OpenAI())


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
