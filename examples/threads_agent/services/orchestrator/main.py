"""The orchestrator: `uvicorn services.orchestrator.main:app --port 8080`."""

from typing import Any

from pydantic import BaseModel

from services.celery_worker.main import celery, generate_post
from services.common.mlflow_openai_wrapper import chat_with_tracking
from services.common.web import MODEL, Task, made_app

__all__ = ["app"]

BRIEF = "In one line, what should a post about this say? {topic}"

app = made_app("orchestrator")


class Accepted(BaseModel):
    """A task under way."""

    task_id: str


class State(BaseModel):
    """How far a task is: PENDING, STARTED, SUCCESS or FAILURE; `result` is there in the end."""

    state: str
    result: Any = None


@app.post("/task", status_code=202)
def start(task: Task) -> Accepted:
    """Brief a persona, and have a worker do the rest."""
    brief = chat_with_tracking(MODEL, BRIEF.format(topic=task.topic), task.persona_id)
    return Accepted(task_id=generate_post.delay(task.persona_id, f"{task.topic}: {brief}").id)


@app.get("/task/{task_id}")
def state(task_id: str) -> State:
    """How far it is."""
    found = celery.AsyncResult(task_id)
    return State(state=found.state, result=found.result if found.successful() else None)
