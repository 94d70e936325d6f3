"""What the services that speak HTTP share: who asks is told by headers, and a task is checked."""

import os
from typing import Annotated

from fastapi import FastAPI
from pydantic import BaseModel, Field

from flowledger.integrations.asgi import HEADERS, FlowledgerMiddleware

__all__ = ["MODEL", "WHO", "Task", "made_app"]

MODEL = os.environ.get("THREADS_AGENT_MODEL", "gpt-4o")
# Anybody may send a header: these services stand behind a gateway that sets this one.
WHO = {**HEADERS, "user_id": "x-user-id"}


class Task(BaseModel):
    """A post to write. Experiments are named by personas: descriptive ones, so no `bot1`."""

    persona_id: Annotated[str, Field(pattern="^[a-z]+(_[a-z]+)*$", max_length=64)]
    topic: Annotated[str, Field(min_length=1, max_length=4000)]


def made_app(feature: str) -> FastAPI:
    """An application whose calls of models are of this feature, for whom the request says."""
    app = FastAPI(title=feature)
    named = [lambda scope: {"feature": feature}]
    app.add_middleware(FlowledgerMiddleware, headers=WHO, extractors=named)
    return app
