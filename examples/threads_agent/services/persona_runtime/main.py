"""The persona runtime: `uvicorn services.persona_runtime.main:app --port 8081`."""

import logging
import os
import time

import httpx
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import flowledger
from flowledger.capture.prompts import PromptTemplate
from services.common.mlflow_openai_wrapper import chat_with_tracking, stream_with_tracking
from services.common.prompt_registry import PromptModelRegistry
from services.common.web import MODEL, Task, made_app

__all__ = ["app"]

PROMPT = "persona_post"
# Versions in the registry that are tried side by side, such as 1,2.
VERSIONS = [int(one) for one in os.environ.get("PERSONA_POST_VERSIONS", "").split(",") if one]
BUILT_IN = flowledger.prompt(PROMPT, "You are {{persona}}. Write a post about {{topic}}.")
PAUSE_SECONDS = 60.0

logger = logging.getLogger(__name__)
app = made_app("persona_runtime")


class Post(BaseModel):
    """A post, and the version of the prompt that asked for it."""

    text: str
    prompt_version: str | None


@app.post("/run")
def run(task: Task) -> Post:
    """Write a post."""
    prompt = prompts.of(task)
    with prompt.use(persona=task.persona_id, topic=task.topic) as asked:
        text = chat_with_tracking(MODEL, asked, task.persona_id)
    return Post(text=text, prompt_version=prompt.version)


@app.post("/stream")
def stream(task: Task) -> StreamingResponse:
    """Write a post, piece by piece."""
    with prompts.of(task).use(persona=task.persona_id, topic=task.topic) as asked:
        pieces = stream_with_tracking(MODEL, asked, task.persona_id)
    return StreamingResponse(pieces, media_type="text/plain")


class _Prompts:
    """The registry's versions, or the built-in prompt while the registry is out of reach."""

    def __init__(self) -> None:
        self._registry = PromptModelRegistry()
        self._asked_again_at = 0.0

    def of(self, task: Task) -> PromptTemplate:
        if not VERSIONS or time.monotonic() < self._asked_again_at:
            return BUILT_IN
        try:
            return self._registry.choose(PROMPT, VERSIONS, key=task.topic)
        except httpx.HTTPError as exc:
            logger.warning("the built-in prompt stands in for the registry's: %s", exc)
            self._asked_again_at = time.monotonic() + PAUSE_SECONDS
            return BUILT_IN


prompts = _Prompts()
