"""What jobs, spans and logged values become in MLflow, in MLflow's words, before any is written.

Pure, as `entries.py` is for calls; both sinks write what is made here.
"""

import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from flowledger.errors import RecordError
from flowledger.records import Actor, Artifact, Job, Logged, Outcome, Place, Span
from flowledger.store.entries import (
    DEFAULT_EXPERIMENT,
    MAX_EXPERIMENT,
    MAX_NAME,
    MAX_PARAM,
    MAX_PREVIEW,
    MAX_SESSION,
    MAX_TAG,
    MAX_USER,
    Entry,
    Trace,
    believable,
    fitted,
    json_text,
    key_of,
    own_pairs,
    preview,
)

__all__ = [
    "LoggedPart",
    "Piece",
    "PieceRecord",
    "RunPart",
    "SpanPart",
    "TracePart",
    "call_span",
    "piece",
    "unknown_job",
]

PieceRecord: TypeAlias = Job | Logged | Span | Artifact
MAX_SPAN_TYPE = 500
JOB_SPAN_TYPE = "CHAIN"

_id = re.compile(r"[0-9a-f]{32}")


class RunPart(NamedTuple):
    """A job's or stage's run; `end_ns` is None and `status` RUNNING while it is under way.

    The name of a run whose job is not known yet is empty.
    """

    id: str
    name: str
    user: str
    status: str
    start_ns: int
    end_ns: int | None


class LoggedPart(NamedTuple):
    """What is written on a run: metrics are (key, value, Unix milliseconds, step).

    `tags` are set, `first_tags` only where there is none of that name yet.
    """

    run_id: str
    params: Sequence[tuple[str, str]] = ()
    metrics: Sequence[tuple[str, float, int, int]] = ()
    tags: Sequence[tuple[str, str]] = ()
    first_tags: Sequence[tuple[str, str]] = ()


class TracePart(NamedTuple):
    """The trace of a job, or of a span that stands alone; `run_id` is the job's."""

    root_id: str
    name: str
    start_ns: int
    end_ns: int | None
    success: bool
    user: str
    session_id: str | None
    run_id: str | None
    request_preview: str | None
    response_preview: str | None
    feature: str | None


class SpanPart(NamedTuple):
    """A span in somebody's trace; attributes are JSON texts, as MLflow keeps them."""

    place: Place
    id: str
    parent_id: str | None
    name: str
    span_type: str
    start_ns: int
    end_ns: int | None
    attributes: dict[str, str]
    outcome: Outcome
    model: str | None = None
    provider: str | None = None


class Piece(NamedTuple):
    """A record that is no call, as MLflow will hold it; `experiment` is None where unknown."""

    record: PieceRecord
    experiment: str | None
    run: RunPart | None = None
    trace: TracePart | None = None
    span: SpanPart | None = None
    logged: LoggedPart | None = None

    @property
    def run_id(self) -> str | None:
        """The run that the record writes on, which may not be there."""
        if isinstance(self.record, Logged | Artifact):
            return self.record.run_id
        return None if self.run is None else self.run.id

    @property
    def key(self) -> tuple[str, int]:
        """What names the record for good: a job's beginning and end share their id."""
        return self.record.producer, self.record.seq


def piece(record: PieceRecord, now_ns: int | None = None) -> Piece:
    """What a record becomes.

    Args:
        record: as it was recorded.
        now_ns: the store's clock, Unix nanoseconds.

    Raises:
        RecordError: it lacks what names it, or says where it belongs.
    """
    if not record.producer or record.seq <= 0:
        raise RecordError("only calls are taken without a producer and a number from 1")
    if isinstance(record, Job | Span) and record.place and not _is_possible(record.place):
        raise RecordError("its place in a trace is not given by ids")
    now_ns = now_ns or time.time_ns()
    if isinstance(record, Job):
        return _job(record, now_ns)
    if isinstance(record, Span):
        return _span(record, now_ns)
    if not _id.fullmatch(record.run_id):
        raise RecordError("it names no run by its id, 32 characters of lower-case hex")
    if isinstance(record, Logged):
        return Piece(record, _experiment(record.experiment), logged=_logged(record))
    return Piece(record, _experiment(record.experiment))


def unknown_job(job_id: str, experiment: str, start_ns: int) -> Piece:
    """A job whose own record has not come yet, so that what belongs to it finds a place."""
    job = Job(id=job_id, producer=job_id, seq=1, start_ns=start_ns, running=True)
    made = _job(job, start_ns)
    assert made.run is not None
    assert made.trace is not None
    return made._replace(
        experiment=experiment,
        run=made.run._replace(name=""),
        trace=made.trace._replace(name=""),
        logged=None,
    )


def call_span(entry: Entry) -> SpanPart | None:
    """A call's span in the trace of the job around it, None where there is no job.

    What was asked and answered is in the call's own trace; here stand their beginnings.
    """
    call, trace = entry.call, entry.trace
    if call.place is None or not _is_possible(call.place):
        return None
    cost = entry.cost
    shown = {
        "mlflow.traceRequestId": f"tr-{call.place.root_id}",
        "mlflow.spanType": trace.span_type,
        "mlflow.spanLogLevel": 20 if call.outcome.success else 40,
        "mlflow.llm.model": call.model or call.model_asked,
        "mlflow.llm.provider": call.provider,
        "flowledger.run_id": call.id,
        "flowledger.total_tokens": call.usage.total_tokens,
        "flowledger.cost_usd": None if cost is None else cost.total,
    }
    texts = {key: json_text(value) for key, value in shown.items() if value is not None}
    texts |= _short_texts(trace)
    return SpanPart(
        place=call.place,
        id=call.id,
        parent_id=call.place.parent_id,
        name=trace.name,
        span_type=trace.span_type,
        start_ns=entry.start_ns,
        end_ns=entry.end_ns,
        attributes=texts,
        outcome=call.outcome,
        model=call.model or call.model_asked,
        provider=call.provider,
    )


def _short_texts(trace: Trace) -> dict[str, str]:
    """What was asked and answered where it is short, else how it begins."""
    shown = {
        "mlflow.spanInputs": trace.request_preview,
        "mlflow.spanOutputs": trace.response_preview,
    }
    return {
        key: whole if len(whole := trace.attributes[key]) <= MAX_PREVIEW else json_text(beginning)
        for key, beginning in shown.items()
        if beginning is not None
    }


def _is_possible(place: Place) -> bool:
    return bool(_id.fullmatch(place.root_id) and _id.fullmatch(place.parent_id))


def _job(job: Job, now_ns: int) -> Piece:
    start_ns = believable(job.start_ns, now_ns, [])
    end_ns = None if job.running else start_ns + max(0, job.duration_ns)
    name = fitted(job.name, MAX_NAME) or "job"
    status = "RUNNING" if job.running else "FINISHED" if job.outcome.success else "FAILED"
    user = fitted(job.actor.user_id or "", MAX_USER)
    inputs = json_text(job.params) if job.params else None
    place = job.place or Place(root_id=job.id, parent_id=job.id)
    texts = _attributes(place, JOB_SPAN_TYPE, job.outcome, {}, job.params or None, None)
    return Piece(
        record=job,
        experiment=_experiment(job.experiment or DEFAULT_EXPERIMENT),
        run=RunPart(job.id, name, user, status, start_ns, end_ns),
        logged=LoggedPart(
            run_id=job.id,
            params=_texts(job.params, "params", MAX_PARAM),
            metrics=[] if end_ns is None else [_latency(job, end_ns)],
            first_tags=_job_tags(job, name),
        ),
        trace=None if job.place else _trace(job, name, (start_ns, end_ns), job.id, (inputs, None)),
        span=SpanPart(
            place=place,
            id=job.id,
            parent_id=None if job.place is None else job.place.parent_id,
            name=name,
            span_type=JOB_SPAN_TYPE,
            start_ns=start_ns,
            end_ns=end_ns,
            attributes=texts,
            outcome=job.outcome,
        ),
    )


def _span(span: Span, now_ns: int) -> Piece:
    start_ns = believable(span.start_ns, now_ns, [])
    end_ns = start_ns + max(0, span.duration_ns)
    name = fitted(span.name, MAX_NAME) or "span"
    place = span.place or Place(root_id=span.id, parent_id=span.id)
    span_type = fitted(span.span_type, MAX_SPAN_TYPE)
    inputs, outputs = span.inputs, span.outputs
    texts = _attributes(place, span_type, span.outcome, span.attributes, inputs, outputs)
    shown = (texts.get("mlflow.spanInputs"), texts.get("mlflow.spanOutputs"))
    alone = span.place is None
    named = span.experiment or (DEFAULT_EXPERIMENT if alone else place.experiment)
    return Piece(
        record=span,
        experiment=_experiment(named),
        trace=_trace(span, name, (start_ns, end_ns), None, shown) if alone else None,
        span=SpanPart(
            place=place,
            id=span.id,
            parent_id=None if alone else place.parent_id,
            name=name,
            span_type=span_type,
            start_ns=start_ns,
            end_ns=end_ns,
            attributes=texts,
            outcome=span.outcome,
        ),
    )


def _logged(record: Logged) -> LoggedPart:
    return LoggedPart(
        run_id=record.run_id,
        params=_texts(record.params, "params", MAX_PARAM),
        metrics=[(key_of(m.key), m.value, m.timestamp_ms, m.step) for m in record.metrics],
        tags=_texts(record.tags, "tags", MAX_TAG),
    )


def _trace(
    record: Job | Span,
    name: str,
    times: tuple[int, int | None],
    run_id: str | None,
    shown: tuple[str | None, str | None],
) -> TracePart:
    actor = record.actor
    session = actor.session_id
    return TracePart(
        root_id=record.id,
        name=name,
        start_ns=times[0],
        end_ns=times[1],
        success=record.outcome.success,
        user=fitted(actor.user_id or "", MAX_USER),
        session_id=None if session is None else fitted(session, MAX_SESSION),
        run_id=run_id,
        request_preview=preview(shown[0], ""),
        response_preview=preview(shown[1], ""),
        feature=record.feature if isinstance(record, Job) else None,
    )


def _attributes(
    place: Place,
    span_type: str,
    outcome: Outcome,
    own: dict[str, Any],
    inputs: Any,
    outputs: Any,
) -> dict[str, str]:
    ours = {
        "mlflow.traceRequestId": f"tr-{place.root_id}",
        "mlflow.spanType": span_type,
        "mlflow.spanLogLevel": 20 if outcome.success else 40,
        "mlflow.spanInputs": inputs,
        "mlflow.spanOutputs": outputs,
        "error.type": outcome.error_type,
    }
    kept = {key: value for key, value in ours.items() if value is not None}
    return {key: json_text(value) for key, value in {**own, **kept}.items()}


def _latency(job: Job, end_ns: int) -> tuple[str, float, int, int]:
    return "latency_seconds", max(0, job.duration_ns) / 1e9, end_ns // 1_000_000, 0


def _job_tags(job: Job, name: str) -> list[tuple[str, str]]:
    actor, outcome = job.actor, job.outcome
    ours = {
        "mlflow.runName": name,
        "mlflow.user": actor.user_id,
        **_actor_tags(actor),
        "feature": job.feature,
        "flowledger.id": job.id,
        "mlflow.parentRunId": job.parent_id,
        "mlflow.rootRunId": None if job.place is None else job.place.root_id,
    }
    if not job.running:
        ours |= {
            "status": "success" if outcome.success else "failed",
            "error_type": outcome.error_type,
            "error": outcome.message,
            "error_stack": outcome.stack and outcome.stack[-MAX_TAG:],
        }
    own = [(key, text) for key, text in _texts(job.tags, "tags", MAX_TAG) if key not in FIXED]
    kept = ((key, fitted(value, MAX_TAG)) for key, value in ours.items() if value is not None)
    return list({**dict(kept), **dict(own)}.items())


FIXED = frozenset(("mlflow.runName", "flowledger.id"))


def _actor_tags(actor: Actor) -> dict[str, str | None]:
    return {
        "user_id": actor.user_id,
        "session_id": actor.session_id,
        "persona_id": actor.persona_id,
        "user_role": actor.user_role,
        "environment": actor.environment,
        "audit_reason": actor.audit_reason,
    }


def _texts(values: dict[str, Any], what: str, longest: int) -> list[tuple[str, str]]:
    pairs: Iterable[tuple[str, Any]] = own_pairs(values, what, []).items()
    return [(key, fitted(value, longest)) for key, value in pairs]


def _experiment(name: str | None) -> str | None:
    return None if name is None else fitted(name, MAX_EXPERIMENT)
