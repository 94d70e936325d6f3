"""The persona runtime: `uvicorn services.persona_runtime.main:app --port 8081`."""

import functools
import os
import time

import httpx
from fastapi.responses import StreamingResponse

import flowledger
from flowledger.capture.prompts import PromptTemplate
from services.common.mlflow_openai_wrapper import chat_with_tracking, stream_with_tracking
from services.common.prompt_registry import PromptModelRegistry, choose
from services.common.web import MODEL, Task, made_app

__all__ = ["app"]

PROMPT = "persona_post"
# Versions in the registry that are tried side by side, such as 1,2.
VERSIONS = [int(one) for one in os.environ.get("PERSONA_POST_VERSIONS", "").split(",") if one]
BUILT_IN = flowledger.prompt(PROMPT, "You are {{persona}}. Write a post about {{topic}}.")

app = made_app("persona_runtime")


@app.post("/run")
def run(task: Task) -> dict[str, str | None]:
    """Write a post, and say which version of the prompt asked for it."""
    prompt = _prompt_for(task)
    with prompt.use(persona=task.persona_id, topic=task.topic) as asked:
        text = chat_with_tracking(MODEL, asked, task.persona_id)
    return {"text": text, "prompt_version": prompt.version}


@app.post("/stream")
def stream(task: Task) -> StreamingResponse:
    """Write a post, piece by piece."""
    with _prompt_for(task).use(persona=task.persona_id, topic=task.topic) as asked:
        pieces = stream_with_tracking(MODEL, asked, task.persona_id)
    return StreamingResponse(pieces, media_type="text/plain")


def _prompt_for(task: Task) -> PromptTemplate:
    return choose(_tried(int(time.monotonic() // 60)), task.topic)


@functools.lru_cache(maxsize=1)
def _tried(minute: int) -> list[PromptTemplate]:
    """What is tried side by side, asked for once a minute; the built-in prompt if that fails."""
    registry = PromptModelRegistry()
    try:
        return [registry.load(PROMPT, version) for version in VERSIONS] or [BUILT_IN]
    except httpx.HTTPError:
        return [BUILT_IN]
