"""A Celery application whose worker records once when it starts, then at each task.

`python tasks.py FOLDER COUNT` sends tasks; the broker is that folder.
"""

import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_init

import flowledger

folder = Path(os.environ.get("BROKER_FOLDER") or ".")
for name in ("queue", "control"):
    (folder / name).mkdir(parents=True, exist_ok=True)
app = Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(folder / "queue"),
        "data_folder_out": str(folder / "queue"),
        "control_folder": str(folder / "control"),
    },
    task_ignore_result=True,
    worker_hijack_root_logger=False,
)


@worker_init.connect  # type: ignore[untyped-decorator]
def first_use(**_: Any) -> None:
    """Record in the worker's main process, before it forks."""
    flowledger.record(feature="faults", operation="started")


@app.task  # type: ignore[untyped-decorator]
@flowledger.track(feature="faults")
def double(number: int) -> int:
    """Something to record."""
    return number * 2


if __name__ == "__main__":
    for sent in range(int(sys.argv[1])):
        double.delay(sent)
