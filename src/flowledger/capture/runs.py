"""Runs: what is logged on a job, a stage or a call, under the names that MLflow gives it."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowledger import logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.capture import recorder
from flowledger.capture.content import plain
from flowledger.capture.context import Pending, current, told
from flowledger.capture.recorder import Recorder
from flowledger.records import Artifact, Logged, Metric, Record, decode, new_id

__all__ = ["Run", "guarded", "keep", "run_here"]


class Run:
    """A run that things are logged on; every method returns at once and never raises.

    Names and arguments are those of MLflow's client. A param keeps its first value, a tag its last;
    a metric keeps its history, and its newest value by step, then by time.
    """

    def __init__(
        self, run_id: str, experiment: str | None = None, late: Pending | None = None
    ) -> None:
        self.id = run_id
        self._experiment = experiment
        self._late = late

    def log_param(self, key: str, value: Any) -> None:
        """Keep one param.

        Args:
            key: its name.
            value: anything; what is no text becomes text.
        """
        self.log_params({key: value})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keep params.

        Args:
            params: values by name.
        """
        self._log(lambda: {"params": _by_name(params)})

    def log_metric(
        self, key: str, value: float, step: int | None = None, timestamp: int | None = None
    ) -> None:
        """Keep one value of a metric.

        Args:
            key: its name.
            value: a number.
            step: default 0.
            timestamp: Unix milliseconds; default now.
        """
        self.log_metrics({key: value}, step, timestamp)

    def log_metrics(
        self, metrics: Mapping[str, float], step: int | None = None, timestamp: int | None = None
    ) -> None:
        """Keep one value of each of these metrics.

        Args:
            metrics: numbers by name.
            step: default 0.
            timestamp: Unix milliseconds; default now.
        """
        self._log(lambda: {"metrics": _metrics(metrics, step, timestamp)})

    def set_tag(self, key: str, value: Any) -> None:
        """Set a tag.

        Args:
            key: its name.
            value: anything; what is no text becomes text.
        """
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags.

        Args:
            tags: values by name.
        """
        self._log(lambda: {"tags": _by_name(tags)})

    def log_artifact(self, local_path: str | Path, artifact_path: str | None = None) -> None:
        """Keep a copy of a file, as it is now, or of every file in a folder.

        Args:
            local_path: the file; one over `max_artifact_bytes` is left out, and a tag says so.
            artifact_path: folder among the run's artifacts; default the top one.
        """
        guarded(lambda active: self._log_path(active, Path(local_path), artifact_path or ""))

    def log_dict(self, dictionary: Any, artifact_file: str) -> None:
        """Keep a map or list as a JSON file; a name that ends in `.yaml` is fine, JSON is YAML.

        Args:
            dictionary: what to keep; objects become plain values.
            artifact_file: path among the run's artifacts.
        """
        guarded(lambda active: self._log_bytes(active, artifact_file, _json(dictionary)))

    def log_text(self, text: str, artifact_file: str) -> None:
        """Keep a text as a file in UTF-8.

        Args:
            text: what to keep.
            artifact_file: path among the run's artifacts.
        """
        guarded(lambda active: self._log_bytes(active, artifact_file, _utf8(text)))

    def _log(self, fields: Callable[[], dict[str, Any]]) -> None:
        guarded(lambda active: self._keep_logged(active, fields()))

    def _keep_logged(self, active: Recorder, fields: dict[str, Any]) -> None:
        record = Logged(
            id=new_id(),
            start_ns=time.time_ns(),
            run_id=self.id,
            experiment=self._experiment,
            **fields,
        )
        keep(active, record, self._late)

    def _log_path(self, active: Recorder, path: Path, inside: str) -> None:
        if path.is_dir():
            # As MLflow does, a folder keeps its name.
            for file in sorted(found for found in path.rglob("*") if found.is_file()):
                self._log_file(active, file, f"{inside}/{file.relative_to(path.parent).as_posix()}")
        else:
            self._log_file(active, path, f"{inside}/{path.name}")

    def _log_file(self, active: Recorder, path: Path, artifact_file: str) -> None:
        size, most = path.stat().st_size, active.settings.max_artifact_bytes
        if size > most:
            self._leave_out(active, artifact_file, size)
        else:
            self._log_bytes(active, artifact_file, path.read_bytes())

    def _log_bytes(self, active: Recorder, artifact_file: str, content: bytes) -> None:
        if len(content) > active.settings.max_artifact_bytes:
            self._leave_out(active, artifact_file, len(content))
            return
        record = Artifact(
            id=new_id(),
            start_ns=time.time_ns(),
            run_id=self.id,
            experiment=self._experiment,
            path=_utf8(told(artifact_file).lstrip("/")).decode(),
            content=content,
        )
        keep(active, record, self._late)

    def _leave_out(self, active: Recorder, artifact_file: str, size: int) -> None:
        most = active.settings.max_artifact_bytes
        logs.warn(
            "capture",
            "%s is left out of run %s: %d bytes, and max_artifact_bytes is %d",
            *(artifact_file, self.id, size, most),
        )
        name, reason = artifact_file.strip("/"), f"{size} bytes, max_artifact_bytes is {most}"
        self._keep_logged(active, {"tags": {f"flowledger.left_out.{name}": reason}})


def run_here(run_id: str | None = None) -> Run:
    """The run of this id; else the innermost job or stage, else the call under way.

    Raises:
        LookupError: there is none of them.
    """
    if run_id is not None:
        return Run(run_id)
    context = current()
    if context.run is not None:
        found: Run = context.run
        return found
    if context.parent is not None:
        return Run(context.parent.id, late=context.parent)
    raise LookupError("there is no job here: log inside `with flowledger.job(...)`, or give run_id")


def guarded(log: Callable[[Recorder], None]) -> None:
    """Do something with the recorder, if there is one; its faults are told and go no further."""
    try:
        active = recorder.active()
        if active is not None:
            log(active)
    except Exception as exc:  # noqa: BLE001 - no fault of ours may reach the application
        reraise_asynchronous(exc)
        logs.warn("capture", "not recorded: %s: %s", type(exc).__name__, exc)


def keep(active: Recorder, record: Record, late: Pending | None) -> None:
    """Keep a record now, or right after the call that it must not be stored before."""
    if late is None:
        active.keep(record)
    else:
        late.add(decode(active.encoded(record)))  # as it is now: the application goes on


def _by_name(values: Mapping[str, Any]) -> dict[str, Any]:
    return {told(key): value for key, value in values.items()}


def _metrics(metrics: Mapping[str, float], step: int | None, timestamp: int | None) -> list[Metric]:
    at = time.time_ns() // 1_000_000 if timestamp is None else int(timestamp)
    kept: list[Metric] = []
    for key, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            logs.warn("capture", "metric %s is left out: its value is no number", told(key))
        else:
            kept.append(Metric(key=told(key), value=number, timestamp_ms=at, step=int(step or 0)))
    return kept


def _json(value: Any) -> bytes:
    """As MLflow writes it, with what has no JSON form made plain."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(plain(value), indent=2, ensure_ascii=False)
    return _utf8(text)


def _utf8(text: str) -> bytes:
    return told(text).encode("utf-8", "replace")
