"""Logging on the run here: the innermost job or stage, else the call under way."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowledger.capture.runs import Run, guarded, run_here

__all__ = [
    "log_artifact",
    "log_dict",
    "log_metric",
    "log_metrics",
    "log_param",
    "log_params",
    "log_text",
    "set_tag",
    "set_tags",
]


def log_param(key: str, value: Any, *, run_id: str | None = None) -> None:
    """Keep one param of the run here.

    Args:
        key, value: as `Job.log_param` takes them.
        run_id: another run.
    """
    _here(run_id, lambda run: run.log_param(key, value))


def log_params(params: Mapping[str, Any], *, run_id: str | None = None) -> None:
    """Keep params of the run here.

    Args:
        params: values by name.
        run_id: another run.
    """
    _here(run_id, lambda run: run.log_params(params))


def log_metric(
    key: str,
    value: float,
    step: int | None = None,
    timestamp: int | None = None,
    *,
    run_id: str | None = None,
) -> None:
    """Keep one value of a metric of the run here.

    Args:
        key, value, step, timestamp: as `Job.log_metric` takes them.
        run_id: another run.
    """
    _here(run_id, lambda run: run.log_metric(key, value, step, timestamp))


def log_metrics(
    metrics: Mapping[str, float],
    step: int | None = None,
    timestamp: int | None = None,
    *,
    run_id: str | None = None,
) -> None:
    """Keep one value of each of these metrics of the run here.

    Args:
        metrics, step, timestamp: as `Job.log_metrics` takes them.
        run_id: another run.
    """
    _here(run_id, lambda run: run.log_metrics(metrics, step, timestamp))


def set_tag(key: str, value: Any, *, run_id: str | None = None) -> None:
    """Set a tag of the run here.

    Args:
        key, value: as `Job.set_tag` takes them.
        run_id: another run.
    """
    _here(run_id, lambda run: run.set_tag(key, value))


def set_tags(tags: Mapping[str, Any], *, run_id: str | None = None) -> None:
    """Set tags of the run here.

    Args:
        tags: values by name.
        run_id: another run.
    """
    _here(run_id, lambda run: run.set_tags(tags))


def log_artifact(
    local_path: str | Path, artifact_path: str | None = None, *, run_id: str | None = None
) -> None:
    """Keep a copy of a file or folder with the run here.

    Args:
        local_path, artifact_path: as `Job.log_artifact` takes them.
        run_id: another run.
    """
    _here(run_id, lambda run: run.log_artifact(local_path, artifact_path))


def log_dict(dictionary: Any, artifact_file: str, *, run_id: str | None = None) -> None:
    """Keep a map or list as a JSON file with the run here.

    Args:
        dictionary, artifact_file: as `Job.log_dict` takes them.
        run_id: another run.
    """
    _here(run_id, lambda run: run.log_dict(dictionary, artifact_file))


def log_text(text: str, artifact_file: str, *, run_id: str | None = None) -> None:
    """Keep a text as a file with the run here.

    Args:
        text, artifact_file: as `Job.log_text` takes them.
        run_id: another run.
    """
    _here(run_id, lambda run: run.log_text(text, artifact_file))


def _here(run_id: str | None, log: Callable[[Run], None]) -> None:
    guarded(lambda active: log(run_here(run_id)))
