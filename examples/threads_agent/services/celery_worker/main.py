"""The worker: `celery -A services.celery_worker.main worker`."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
from celery import Celery

import flowledger
from flowledger.config import load
from flowledger.integrations.asgi import outgoing
from flowledger.integrations.celery import instrument
from services.common.mlflow_openai_wrapper import tracked_client
from services.common.web import MODEL, WHO

__all__ = ["celery", "generate_post"]

RUNTIME = os.environ.get("PERSONA_RUNTIME_URL", "http://127.0.0.1:8081")
SCORE = {"type": "integer", "minimum": 1, "maximum": 10, "description": "How engaging it is."}
JUDGE = {"name": "judge", "parameters": {"type": "object", "properties": {"score": SCORE}}}


def _folder(name: str) -> str:
    folder = Path(load().home, "queue", name)
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


# Redis in a cluster; without one, files in flowledger's home.
celery = Celery(
    "threads_agent",
    broker=os.environ.get("CELERY_BROKER_URL", "filesystem://"),
    backend=os.environ.get("CELERY_RESULT_BACKEND") or f"file://{_folder('results')}",
)
celery.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True)
if celery.conf.broker_url == "filesystem://":
    tasks, control = _folder("tasks"), _folder("control")
    celery.conf.broker_transport_options = {
        "data_folder_in": tasks,
        "data_folder_out": tasks,
        "control_folder": control,
    }
instrument()


@celery.task(name="generate_post", autoretry_for=(httpx.TransportError,), max_retries=3)  # type: ignore[untyped-decorator]
def generate_post(persona_id: str, topic: str) -> dict[str, Any]:
    """Have the persona runtime write a post, and judge it."""
    wanted = {"persona_id": persona_id, "topic": topic}
    answer = httpx.post(f"{RUNTIME}/run", json=wanted, headers=outgoing(WHO), timeout=120)
    post: dict[str, Any] = answer.raise_for_status().json()
    with flowledger.context(feature="celery_worker"), tracked_client(persona_id) as client:
        judged = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": post["text"]}],
            tools=[{"type": "function", "function": JUDGE}],
            tool_choice={"type": "function", "function": {"name": "judge"}},
        )
    [asked] = judged.choices[0].message.tool_calls
    return {**post, **json.loads(asked.function.arguments)}
