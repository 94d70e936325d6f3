"""Experiment tracking: a run for each job, with a run nested in it for each stage."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flowledger
from flowledger.config import switched_on


class MLflowTracker:
    """Logs on the innermost run that is open; never raises, never waits for the server."""

    @property
    def enabled(self) -> bool:
        """Whether anything is recorded: `MLFLOW_ENABLE_TRACKING`, `MLFLOW_ENABLE_TRACING`."""
        return switched_on()

    @contextmanager
    def start_job_run(self, job_id: str, **tags: str) -> Iterator[str | None]:
        """The run of one job, and its id; what is raised inside makes it a failed one."""
        with flowledger.job(f"job_{job_id}", tags={"job_id": job_id, **tags}) as run:
            yield run.id if self.enabled else None

    @contextmanager
    def start_nested_run(self, name: str) -> Iterator[str | None]:
        """The run of one stage, with its `latency_seconds`."""
        with flowledger.job(name) as run:
            yield run.id if self.enabled else None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keep params."""
        flowledger.log_params(params)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Keep metrics."""
        flowledger.log_metrics(metrics)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags."""
        flowledger.set_tags(tags)

    def log_artifact(self, path: str | Path) -> None:
        """Keep a copy of a file."""
        flowledger.log_artifact(path)

    def log_dict_artifact(self, content: Any, name: str) -> None:
        """Keep a map or list as a JSON file."""
        flowledger.log_dict(content, name)

    def log_text_artifact(self, text: str, name: str) -> None:
        """Keep a text as a file."""
        flowledger.log_text(text, name)
