"""The API: `uvicorn app.main:app --port 8000`."""

import logging
import os
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel, Field

from app.services import mlflow_dashboard
from app.services.intent_service import IntentService
from flowledger.integrations.asgi import FlowledgerMiddleware

logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO").upper())
for library in ("httpx", "LiteLLM"):
    logging.getLogger(library).setLevel(logging.WARNING)
app = FastAPI(title="Intent detection")
app.add_middleware(FlowledgerMiddleware)
app.include_router(mlflow_dashboard.router())
service = IntentService()
Short = Annotated[str, Field(max_length=100)]


class Message(BaseModel):
    """What a user wrote, and where."""

    message: Annotated[str, Field(min_length=1, max_length=10_000)]
    user_role: Short = "user"
    current_module: Short = "home"
    current_tab: Short = "overview"


@app.post("/api/intent/detect")
def detect(message: Message, x_session_id: Annotated[str, Header()] = "") -> dict[str, Any]:
    """What the user wants."""
    context = message.model_dump(exclude={"message"})
    try:
        return service.detect(message.message, context, x_session_id or message.message)
    except Exception as exc:
        raise HTTPException(502, f"the model gave no answer: {type(exc).__name__}") from exc
