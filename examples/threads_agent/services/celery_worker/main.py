"""The worker: `celery -A services.celery_worker.main worker`."""

import os
from pathlib import Path
from typing import Any

import httpx
from celery import Celery, Task

import flowledger
from flowledger.config import load
from flowledger.integrations.asgi import outgoing
from flowledger.integrations.celery import instrument
from services.common.mlflow_openai_wrapper import call_functions_with_tracking
from services.common.web import MODEL, WHO

__all__ = ["celery", "generate_post"]

RUNTIME = os.environ.get("PERSONA_RUNTIME_URL", "http://127.0.0.1:8081")
SECONDS = 120.0
JUDGE = {
    "type": "function",
    "function": {
        "name": "judge",
        "description": "Say how engaging a post is.",
        "parameters": {
            "type": "object",
            "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 10}},
            "required": ["score"],
            "additionalProperties": False,
        },
    },
}


def _folder(name: str) -> str:
    folder = Path(load().home, "queue", name)
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


# Redis in a cluster; without one, files in flowledger's home.
BROKER = os.environ.get("CELERY_BROKER_URL", "filesystem://")
BACKEND = os.environ.get("CELERY_RESULT_BACKEND") or f"file://{_folder('results')}"

celery = Celery("threads_agent", broker=BROKER, backend=BACKEND)
celery.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True)
if BROKER == "filesystem://":
    celery.conf.broker_transport_options = {
        "data_folder_in": _folder("tasks"),
        "data_folder_out": _folder("tasks"),
        "control_folder": _folder("control"),
    }
instrument()


@celery.task(name="generate_post", bind=True, max_retries=3)  # type: ignore[untyped-decorator]
def generate_post(self: "Task[Any, Any]", persona_id: str, topic: str) -> dict[str, Any]:
    """Have the persona runtime write a post, and judge it."""
    try:
        wanted = {"persona_id": persona_id, "topic": topic}
        answer = httpx.post(f"{RUNTIME}/run", json=wanted, headers=outgoing(WHO), timeout=SECONDS)
        post = answer.raise_for_status().json()
    except httpx.TransportError as exc:
        raise self.retry(exc=exc, countdown=2) from exc
    with flowledger.context(feature="celery_worker"):
        judged = call_functions_with_tracking(MODEL, post["text"], persona_id, [JUDGE])
    return {**post, "score": judged[0][1]["score"] if judged else None}
