"""The rows of a batch, table by table, as tuples in the order of their columns.

Pure: no SQL. MLflow's own table definitions say the same columns; a test compares.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from flowledger.errors import RecordError
from flowledger.records import Gap, Producer
from flowledger.store.derived import Derived, derive, dimension_text, ledger_text, own_tag
from flowledger.store.entries import Entry, cost_parts, finite, json_text, token_usage, user_of
from flowledger.store.spans import span_content, span_id_of

__all__ = [
    "COLUMNS",
    "LEDGER",
    "Experiment",
    "Rows",
    "gap_row",
    "make_rows",
    "producer_row",
    "tag_rows",
]

LEDGER = "llm_calls"
MOST_NUMBERS = 2**40  # a process that records 10,000 times a second gives so many in 3 years
COLUMNS: dict[str, tuple[str, ...]] = {
    "runs": (
        "run_uuid",
        "name",
        "source_type",
        "source_name",
        "entry_point_name",
        "user_id",
        "status",
        "start_time",
        "end_time",
        "source_version",
        "lifecycle_stage",
        "artifact_uri",
        "experiment_id",
    ),
    "params": ("key", "value", "run_uuid"),
    "metrics": ("key", "value", "timestamp", "step", "is_nan", "run_uuid"),
    "latest_metrics": ("key", "value", "timestamp", "step", "is_nan", "run_uuid"),
    "tags": ("key", "value", "run_uuid"),
    "trace_info": (
        "request_id",
        "experiment_id",
        "timestamp_ms",
        "execution_time_ms",
        "status",
        "client_request_id",
        "request_preview",
        "response_preview",
        "db_payload_generation",
        "trace_name",
        "session_id",
        "input_tokens",
        "output_tokens",
        "total_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "input_cost",
        "output_cost",
        "total_cost",
    ),
    "trace_tags": ("key", "value", "request_id"),
    "trace_request_metadata": ("key", "value", "request_id"),
    "spans": (
        "trace_id",
        "experiment_id",
        "span_id",
        "parent_span_id",
        "name",
        "type",
        "status",
        "start_time_unix_nano",
        "end_time_unix_nano",
        "content",
        "input_cost",
        "output_cost",
        "total_cost",
        "model_name",
        "model_provider",
    ),
    "entity_associations": (
        "association_id",
        "source_type",
        "source_id",
        "destination_type",
        "destination_id",
        "created_time",
    ),
    LEDGER: (
        "id",
        "producer_id",
        "seq",
        "experiment_id",
        "parent_id",
        "inner_calls",
        "start_ms",
        "received_ms",
        "latency_ms",
        "time_to_first_token_ms",
        "kind",
        "operation",
        "feature",
        "function",
        "provider",
        "model",
        "model_asked",
        "user_id",
        "session_id",
        "persona_id",
        "user_role",
        "audit_reason",
        "environment",
        "input_tokens",
        "output_tokens",
        "total_tokens",
        "cached_input_tokens",
        "cache_write_tokens",
        "cache_write_1h_tokens",
        "reasoning_tokens",
        "input_audio_tokens",
        "output_audio_tokens",
        "input_image_tokens",
        "images",
        "audio_seconds",
        "input_characters",
        "usage_source",
        "cost_usd",
        "input_cost_usd",
        "output_cost_usd",
        "cost_source",
        "success",
        "error_type",
        "error_message",
        "prompt_name",
        "prompt_version",
        "prompt_hash",
        *Derived._fields,
        "details",
        "content",
    ),
    "llm_tags": ("key", "value", "call_id"),
    "llm_producers": ("id", "host", "pid", "os_user", "source", "version", "start_ms"),
    "llm_gaps": ("producer_id", "first_seq", "last_seq", "dropped", "reason", "seen_ms"),
    "llm_rejected": ("producer_id", "seq", "reason", "seen_ms"),
}
MAX_KEY_TEXT = 250
MODEL_DIMENSION = 500
ASSOCIATED = 36
TRACE_SCHEMA_VERSION = "3"


class Experiment(NamedTuple):
    """An MLflow experiment that is there: its id and where its artifacts go."""

    id: int
    artifact_location: str


class Rows:
    """Tuples of a batch by table, in the order the tables must be written."""

    def __init__(self) -> None:
        self.by_table: dict[str, list[tuple[Any, ...]]] = {table: [] for table in COLUMNS}

    def add(self, table: str, *rows: tuple[Any, ...]) -> None:
        """Add rows of one table."""
        self.by_table[table].extend(rows)


def make_rows(entries: Iterable[Entry], experiments: dict[str, Experiment], store_as: str) -> Rows:
    """Every row of these entries.

    Args:
        entries: what the calls of a batch become.
        experiments: the experiment of each name that the entries use.
        store_as: `run+trace`, `run`, `trace` or `ledger`.
    """
    rows = Rows()
    received_ms = time.time_ns() // 1_000_000
    for entry in entries:
        experiment = experiments[entry.experiment]
        if "run" in store_as:
            _add_run(rows, entry, experiment)
        if "trace" in store_as:
            _add_trace(rows, entry, experiment, linked="run" in store_as)
        ledger_row = _ledger_row(entry, experiment, received_ms, content="trace" not in store_as)
        rows.add(LEDGER, ledger_row)
        rows.add("llm_tags", *tag_rows(entry.call.id, entry.call.tags, entry.tags))
    return rows


def producer_row(producer: Producer) -> tuple[Any, ...]:
    """The row of a process that writes journals."""
    return (
        producer.id,
        ledger_text(producer.host),
        producer.pid,
        ledger_text(producer.user),
        ledger_text(producer.source),
        ledger_text(producer.version),
        producer.start_ns // 1_000_000,
    )


def gap_row(gap: Gap) -> tuple[Any, ...]:
    """The row of records that a process numbered but could not keep.

    Raises:
        RecordError: its numbers are none of a process, or it counts more than they are.
    """
    numbers = gap.last_seq - gap.first_seq + 1
    if not (0 < gap.first_seq and 0 < gap.count <= numbers and gap.last_seq < MOST_NUMBERS):
        raise RecordError(
            f"a gap counts from 1 up to as many records as it has numbers, below {MOST_NUMBERS}"
        )
    now_ms = time.time_ns() // 1_000_000
    reason = ledger_text(gap.reason)
    return (gap.producer, gap.first_seq, gap.last_seq, gap.count, reason, now_ms)


def tag_rows(
    call_id: str, own: Mapping[str, Any], tags: Iterable[tuple[str, str]]
) -> list[tuple[str, str, str]]:
    """The rows of those of a call's tags that are the caller's own and fit into an index."""
    if not own:
        return []
    return [(k, value, call_id) for k, value in tags if k in own and len(value) <= MAX_KEY_TEXT]


def _add_run(rows: Rows, entry: Entry, experiment: Experiment) -> None:
    run_id, end_ms = entry.call.id, entry.end_ns // 1_000_000
    rows.add(
        "runs",
        (
            run_id,
            entry.name,
            "UNKNOWN",
            "",
            "",
            user_of(entry.call),
            "FINISHED" if entry.call.outcome.success else "FAILED",
            entry.start_ns // 1_000_000,
            end_ms,
            "",
            "active",
            f"{experiment.artifact_location}/{run_id}/artifacts",
            experiment.id,
        ),
    )
    # In the order of their keys, in which the chain's digests are made (`leaves.py`).
    rows.add("params", *((key, value, run_id) for key, value in sorted(entry.params)))
    rows.add("tags", *((key, value, run_id) for key, value in sorted(entry.tags)))
    metrics = [(key, *_value_at(number, end_ms), run_id) for key, number in sorted(entry.metrics)]
    rows.add("metrics", *metrics)
    rows.add("latest_metrics", *metrics)


def _value_at(number: float, timestamp_ms: int) -> tuple[float, int, int, bool]:
    value, is_nan = finite(number)
    return value, timestamp_ms, 0, is_nan


def _add_trace(rows: Rows, entry: Entry, experiment: Experiment, linked: bool) -> None:
    call, trace, trace_id = entry.call, entry.trace, f"tr-{entry.call.id}"
    start_ms, end_ms = entry.start_ns // 1_000_000, entry.end_ns // 1_000_000
    usage = token_usage(call) if call.usage.total_tokens is not None else {}
    cost = cost_parts(entry.cost) if entry.cost is not None else {}
    costs = (cost.get("input_cost"), cost.get("output_cost"), cost.get("total_cost"))
    rows.add(
        "trace_info",
        (
            trace_id,
            experiment.id,
            start_ms,
            end_ms - start_ms,
            "OK" if call.outcome.success else "ERROR",
            None,
            trace.request_preview,
            trace.response_preview,
            1,
            trace.name,
            _optional(call.actor.session_id, 250),
            usage.get("input_tokens"),
            usage.get("output_tokens"),
            usage.get("total_tokens"),
            usage.get("cache_read_input_tokens"),
            usage.get("cache_creation_input_tokens"),
            *costs,
        ),
    )
    location = f"{experiment.artifact_location}/traces/{trace_id}/artifacts"
    tags = [
        ("mlflow.artifactLocation", location),
        ("mlflow.trace.spansLocation", "TRACKING_STORE"),
        *trace.tags,
    ]
    rows.add("trace_tags", *((key, value, trace_id) for key, value in sorted(tags)))
    rows.add("trace_request_metadata", *_trace_metadata(entry, trace_id, linked))
    rows.add("spans", _span_row(entry, experiment, trace_id, costs))
    rows.add("entity_associations", *_prompt_rows(entry, trace_id))


def _prompt_rows(entry: Entry, trace_id: str) -> list[tuple[Any, ...]]:
    """What MLflow's search for the traces of a prompt version looks in."""
    prompt = entry.trace.prompt
    version = "" if prompt is None else f"{prompt.name}/{prompt.version}"
    if not 0 < len(version) <= ASSOCIATED:
        return []
    return [(entry.call.id, "trace", trace_id, "prompt_version", version, entry.end_ns // 10**6)]


def _trace_metadata(entry: Entry, trace_id: str, linked: bool) -> list[tuple[str, str, str]]:
    metadata = {
        "mlflow.trace_schema.version": TRACE_SCHEMA_VERSION,
        "mlflow.trace.infoFinalized": "true",
    }
    if linked:
        metadata["mlflow.sourceRun"] = entry.call.id
    if entry.call.actor.user_id:
        metadata["mlflow.trace.user"] = user_of(entry.call)
    return [(key, value, trace_id) for key, value in sorted(metadata.items())]


def _span_row(
    entry: Entry, experiment: Experiment, trace_id: str, costs: tuple[float | None, ...]
) -> tuple[Any, ...]:
    call, trace = entry.call, entry.trace
    times = (entry.start_ns, entry.end_ns)
    return (
        trace_id,
        experiment.id,
        span_id_of(call.id),
        None,
        trace.name,
        trace.span_type,
        "OK" if call.outcome.success else "ERROR",
        entry.start_ns,
        entry.end_ns,
        span_content(call.id, call.id, None, trace.name, times, trace.attributes, call.outcome),
        *costs,
        _optional(call.model or call.model_asked, MODEL_DIMENSION),
        _optional(call.provider, MODEL_DIMENSION),
    )


def _ledger_row(
    entry: Entry, experiment: Experiment, received_ms: int, content: bool
) -> tuple[Any, ...]:
    call, cost = entry.call, entry.cost
    actor, usage, outcome, prompt = call.actor, call.usage, call.outcome, call.prompt_version
    text, dimension = ledger_text, dimension_text
    latency_ms = max(0, call.duration_ns) / 1e6
    feature, provider = dimension(call.feature), dimension(call.provider)
    persona, error_type = dimension(actor.persona_id), dimension(outcome.error_type)
    model = dimension(call.model or call.model_asked)
    version = dimension(prompt.version or own_tag(call.tags, "prompt_version") or prompt.hash)
    derived = derive(
        experiment_id=experiment.id,
        feature=feature,
        persona_id=persona,
        provider=provider,
        model=model,
        prompt_version=version,
        success=outcome.success,
        error_type=error_type,
        latency_ms=latency_ms,
        kind=call.kind,
        parent_id=call.parent_id,
        inner_calls=call.inner_calls,
        total_tokens=usage.total_tokens,
        cost_usd=None if cost is None else cost.total,
        metrics=call.metrics,
        tags=call.tags,
    )
    return (
        call.id,
        call.producer,
        call.seq,
        experiment.id,
        text(call.parent_id),
        call.inner_calls,
        entry.start_ns // 1_000_000,
        received_ms,
        latency_ms,
        None if call.first_token_ns is None else call.first_token_ns / 1e6,
        text(call.kind),
        text(call.operation),
        feature,
        text(call.function),
        provider,
        model,
        text(call.model_asked),
        dimension(actor.user_id),
        dimension(actor.session_id),
        persona,
        dimension(actor.user_role or own_tag(call.tags, "user_role")),
        text(actor.audit_reason),
        dimension(actor.environment),
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens,
        usage.reasoning_tokens,
        usage.input_audio_tokens,
        usage.output_audio_tokens,
        usage.input_image_tokens,
        usage.images,
        usage.seconds,
        usage.characters,
        None if usage.total_tokens is None else text(usage.source),
        None if cost is None else cost.total,
        None if cost is None else cost.input,
        None if cost is None else cost.output,
        None if cost is None else cost.source,
        outcome.success,
        error_type,
        text(outcome.message),
        text(prompt.name),
        version,
        text(prompt.hash),
        *derived,
        _details(entry),
        _content(entry) if content else None,
    )


def _details(entry: Entry) -> str:
    call = entry.call
    details = {
        "settings": call.settings,
        "params": call.params,
        "metrics": call.metrics,
        "tags": call.tags,
        "notes": entry.notes,
        "unknown": call.unknown,
    }
    return json_text({name: value for name, value in details.items() if value})


def _content(entry: Entry) -> str:
    """What the trace would have held, when there is none."""
    call = entry.call
    return json_text(
        {
            "prompt": call.prompt,
            "response": call.response,
            "tool_calls": call.tool_calls,
            "stack": call.outcome.stack,
        }
    )


def _optional(value: str | None, longest: int) -> Any:
    text = ledger_text(value)
    return None if text is None else text[:longest]
