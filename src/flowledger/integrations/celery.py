"""Carrying who asks and why from who publishes a Celery task to the worker that runs it."""

from typing import Any

from celery import signals

from flowledger import config, logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.capture.context import EMPTY, Context, carried, context
from flowledger.integrations.carrying import packed, unpacked

__all__ = ["HEADER", "instrument"]

HEADER = "flowledger"
_before: dict[str, Context] = {}


def instrument() -> bool:
    """Carry the context with every task from now on: call it where tasks are sent, and in workers.

    The module that makes your Celery application is the place, since both import it. A task's own
    calls are tagged with its name and id. Calling it again changes nothing.

    Returns:
        Whether it is carried: not when recording is off.
    """
    if not config.switched_on():
        return False
    for signal, receiver in (
        (signals.before_task_publish, _pack),
        (signals.task_prerun, _enter),
        (signals.task_postrun, _leave),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"flowledger.{receiver.__name__}")
    return True


def _pack(headers: Any = None, **kwargs: Any) -> None:
    """In the publisher: the context goes into the task's headers."""
    try:
        if isinstance(headers, dict) and carried.get() is not EMPTY:
            headers[HEADER] = packed(carried.get())
    except Exception as exc:  # noqa: BLE001 - no fault of ours may reach the application
        reraise_asynchronous(exc)
        logs.warn("celery", "a task goes without its context: %s", type(exc).__name__)


def _enter(task_id: str = "", task: Any = None, **kwargs: Any) -> None:
    """In the worker: the task runs in that context, or in its caller's when it runs eagerly."""
    try:
        before = carried.get()
        fields = unpacked(task.request.get(HEADER))
        own = {"celery_task": task.name, "celery_task_id": task_id}
        with context(**{**fields, "tags": {**fields.get("tags", {}), **own}}):
            inside = carried.get()
        _before[task_id] = before
        carried.set(inside)
    except Exception as exc:  # noqa: BLE001 - no fault of ours may reach the application
        reraise_asynchronous(exc)
        logs.warn("celery", "a task runs without its context: %s", type(exc).__name__)


def _leave(task_id: str = "", **kwargs: Any) -> None:
    """The next task of this worker begins anew."""
    before = _before.pop(task_id, None)
    if before is not None:
        carried.set(before)
