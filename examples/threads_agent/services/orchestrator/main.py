"""The orchestrator: `uvicorn services.orchestrator.main:app --port 8080`."""

from typing import Any

from services.celery_worker.main import celery, generate_post
from services.common.mlflow_openai_wrapper import chat_with_tracking
from services.common.web import MODEL, Task, made_app

__all__ = ["app"]

app = made_app("orchestrator")


@app.post("/task", status_code=202)
def start(task: Task) -> dict[str, str]:
    """Brief a persona, and have a worker do the rest."""
    asked = f"In one line, what should a post about this say? {task.topic}"
    brief = chat_with_tracking(MODEL, asked, task.persona_id)
    return {"task_id": generate_post.delay(task.persona_id, f"{task.topic}: {brief}").id}


@app.get("/task/{task_id}")
def state(task_id: str) -> dict[str, Any]:
    """How far it is: PENDING, STARTED, SUCCESS or FAILURE, and the post in the end."""
    found = celery.AsyncResult(task_id)
    return {"state": found.state, "result": found.result if found.successful() else None}
