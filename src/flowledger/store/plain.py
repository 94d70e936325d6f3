"""The plain sink: MLflow's public API, for an MLflow server or folder we do not control.

Slower by far than the bulk sink: each call is several requests. The server chooses run ids here, so
the tag `flowledger.id` says which call a run is, and is looked up when a batch is delivered again.
"""

import json
import os
import re
from collections.abc import Sequence
from typing import Any

from flowledger.config import Destination
from flowledger.errors import RecordError, StoreMisconfigured, StoreUnavailable
from flowledger.records import Call, Gap, Gone, Producer, decode
from flowledger.store import Refusal
from flowledger.store.entries import Entry, entry
from flowledger.store.job_entries import piece

# Read when MLflow is imported or first used: our own back-off does better than minutes of retries,
# and a batch is acknowledged only once its traces are exported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunStatus, SpanEvent, SpanStatus, SpanStatusCode
from mlflow.exceptions import MlflowException

from flowledger.store.plain_jobs import PlainJobs

__all__ = ["PlainSink"]

_id = re.compile(r"[0-9a-f]{32}")
RECORD_FAULTS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")


class PlainSink:
    """A `Sink` over MLflow's public API.

    Args:
        destination: where MLflow keeps its runs, and what a call becomes there.

    Raises:
        StoreMisconfigured: MLflow cannot use its store as it is, or calls are to become ledger rows
            alone, which MLflow has no place for.
        StoreUnavailable: the server does not answer.
    """

    batch_bytes = 64 << 10

    def __init__(self, destination: Destination) -> None:
        self._as_run = "run" in destination.store_as
        self._as_trace = "trace" in destination.store_as
        if destination.store_as == "ledger":
            raise StoreMisconfigured(
                f"{destination.redacted().tracking_uri} is plain MLflow and has no ledger: set "
                "FLOWLEDGER_STORE_AS to run+trace, run or trace"
            )
        mlflow.set_tracking_uri(destination.tracking_uri)
        self._experiments: dict[str, str] = {}
        try:
            self._client = MlflowClient(tracking_uri=destination.tracking_uri)
            self._client.search_experiments(max_results=1)
            self._jobs = PlainJobs(self._client, self._experiment)
        except MlflowException as exc:
            remote = destination.tracking_uri.startswith("http")
            kind = StoreUnavailable if remote else StoreMisconfigured
            raise kind(f"MLflow cannot use its store: {exc.message}") from exc

    def write(self, payloads: Sequence[bytes], *, redelivered: bool = False) -> list[Refusal]:
        """Store records one after the other; producers and gaps have no place in plain MLflow."""
        refusals: list[Refusal] = []
        for index, payload in enumerate(payloads):
            try:
                record = decode(payload)
                if isinstance(record, Call):
                    self._store(entry(_checked(record)), redelivered)
                elif not isinstance(record, Producer | Gap | Gone):
                    self._jobs.store(piece(record))
            except RecordError as exc:
                refusals.append(Refusal(index, str(exc)))
            except MlflowException as exc:
                if exc.error_code not in RECORD_FAULTS:
                    raise StoreUnavailable(f"MLflow does not take calls: {exc.message}") from exc
                refusals.append(Refusal(index, f"MLflow refuses it: {exc.message}"[:1000]))
        return refusals

    def close(self) -> None:
        """MLflow keeps its connections itself."""

    def _store(self, made: Entry, redelivered: bool) -> None:
        experiment_id = self._experiment(made.experiment)
        run = self._begun(experiment_id, made) if redelivered else None
        if run is not None and RunStatus.is_terminated(RunStatus.from_string(run.info.status)):
            return
        run_id = self._log_run(run, experiment_id, made) if self._as_run else None
        if self._as_trace and not self._traced(experiment_id, made, redelivered):
            _log_trace(made, experiment_id, run_id)
        if run_id is not None:
            status = "FINISHED" if made.call.outcome.success else "FAILED"
            self._client.set_terminated(run_id, status, made.end_ns // 1_000_000)

    def _begun(self, experiment_id: str, made: Entry) -> Run | None:
        found = self._client.search_runs([experiment_id], _is_call(made), max_results=1)
        return found[0] if found else None

    def _traced(self, experiment_id: str, made: Entry, redelivered: bool) -> bool:
        if not redelivered:
            return False
        return bool(
            self._client.search_traces(
                locations=[experiment_id],
                filter_string=_is_call(made),
                max_results=1,
                include_spans=False,
            )
        )

    def _log_run(self, run: Run | None, experiment_id: str, made: Entry) -> str:
        end_ms = made.end_ns // 1_000_000
        if run is None:
            tags = self._jobs.with_parent(dict(made.tags))
            start_ms = made.start_ns // 1_000_000
            run = self._client.create_run(experiment_id, start_ms, tags, made.name)
        self._client.log_batch(
            run.info.run_id,
            metrics=[Metric(key, value, end_ms, 0) for key, value in made.metrics],
            params=[Param(key, value) for key, value in made.params],
        )
        return str(run.info.run_id)

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage != "active":
                self._client.restore_experiment(found.experiment_id)
            self._experiments[name] = (
                found.experiment_id if found is not None else self._client.create_experiment(name)
            )
        return self._experiments[name]


def _checked(call: Call) -> Call:
    if not _id.fullmatch(call.id):
        raise RecordError("an id must be 32 characters of lower-case hex")
    return call


def _is_call(made: Entry) -> str:
    return f"tags.`flowledger.id` = '{made.call.id}'"


def _log_trace(made: Entry, experiment_id: str, run_id: str | None) -> None:
    actor, outcome = made.call.actor, made.call.outcome
    metadata = {
        "mlflow.sourceRun": run_id,
        "mlflow.trace.user": actor.user_id,
        "mlflow.trace.session": actor.session_id,
    }
    attributes = {key: json.loads(text) for key, text in made.trace.attributes.items()}
    inputs, outputs = (
        attributes.pop("mlflow.spanInputs", None),
        attributes.pop("mlflow.spanOutputs", None),
    )
    span = mlflow.start_span_no_context(
        made.trace.name,
        span_type=made.trace.span_type,
        inputs=inputs,
        attributes={k: v for k, v in attributes.items() if k not in SET_BY_MLFLOW},
        tags={**dict(made.trace.tags), "flowledger.id": made.call.id},
        metadata={key: value for key, value in metadata.items() if value},
        experiment_id=experiment_id,
        start_time_ns=made.start_ns,
    )
    if not outcome.success:
        _add_failure(span, made)
    span.end(outputs=outputs, status=_status(made), end_time_ns=made.end_ns)


SET_BY_MLFLOW = ("mlflow.traceRequestId", "mlflow.spanType", "mlflow.spanLogLevel")


def _status(made: Entry) -> SpanStatus:
    outcome = made.call.outcome
    if outcome.success:
        return SpanStatus(SpanStatusCode.OK)
    return SpanStatus(SpanStatusCode.ERROR, f"{outcome.error_type}: {outcome.message}")


def _add_failure(span: Any, made: Entry) -> None:
    outcome = made.call.outcome
    span.add_event(
        SpanEvent(  # type: ignore[abstract]  # only in MLflow's annotations
            "exception",
            timestamp=made.end_ns,
            attributes={
                "exception.message": outcome.message or "",
                "exception.type": outcome.error_type or "",
                "exception.stacktrace": outcome.stack or "",
            },
        )
    )
