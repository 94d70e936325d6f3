"""The rows of jobs, spans and logged values, and how each table takes what may be there already.

Pure: no connection. Unlike a call, a job is written more than once: when it begins, while values
are logged on it, and when it ends. Every statement is such that a second delivery changes nothing.
"""

import time
from typing import Any

from flowledger.store.entries import finite
from flowledger.store.job_entries import LoggedPart, Piece, RunPart, SpanPart, TracePart
from flowledger.store.leaves import KEPT
from flowledger.store.rows import COLUMNS, MODEL_DIMENSION, TRACE_SCHEMA_VERSION, Experiment
from flowledger.store.spans import span_content, span_id_of

__all__ = ["RULES", "Statements", "insert_into"]

KEEP = "ON CONFLICT DO NOTHING"
TABLES = {"first_tags": "tags"}
COLUMNS_OF = {
    "llm_records": ("producer_id", "seq", "id", "kind", "received_ms"),
    "llm_artifacts": ("producer_id", "seq", "run_id", "received_ms", "refused", "reason", "record"),
}
# In the order in which they must be written. A run or trace that has ended is not begun again, and
# one whose job is not known yet has no name.
RULES = {
    "runs": "ON CONFLICT (run_uuid) DO UPDATE SET name = excluded.name,"
    " user_id = excluded.user_id, status = excluded.status, start_time = excluded.start_time,"
    " end_time = excluded.end_time WHERE runs.status = 'RUNNING' AND excluded.name <> ''"
    " AND runs.experiment_id = excluded.experiment_id",
    "params": KEEP,
    "metrics": KEEP,
    # As MLflow compares: SqlAlchemyStore._update_latest_metrics_if_necessary.
    "latest_metrics": "ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value,"
    " timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan"
    " WHERE (excluded.step, excluded.timestamp, excluded.value)"
    " > (latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)",
    "first_tags": KEEP,
    "tags": "ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value",
    "trace_info": "ON CONFLICT (request_id) DO UPDATE SET trace_name = excluded.trace_name,"
    " timestamp_ms = excluded.timestamp_ms, execution_time_ms = excluded.execution_time_ms,"
    " status = excluded.status, request_preview = excluded.request_preview,"
    " response_preview = excluded.response_preview, session_id = excluded.session_id"
    " WHERE trace_info.status = 'IN_PROGRESS' AND excluded.trace_name <> ''"
    " AND trace_info.experiment_id = excluded.experiment_id",
    "trace_tags": KEEP,
    "trace_request_metadata": KEEP,
    "spans": "ON CONFLICT (trace_id, span_id) DO UPDATE SET name = excluded.name,"
    " type = excluded.type, status = excluded.status,"
    " end_time_unix_nano = excluded.end_time_unix_nano, content = excluded.content"
    " WHERE spans.end_time_unix_nano IS NULL",
    "llm_records": KEEP,
    "llm_artifacts": KEEP,
}


class Statements:
    """Rows by the rule they are written with, in the order they must be written."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[Any, ...]]] = {rule: [] for rule in RULES}

    def add_run(self, run: RunPart, experiment: Experiment) -> None:
        """The row of a run."""
        self.rows["runs"].append(
            (
                run.id,
                run.name,
                "UNKNOWN",
                "",
                "",
                run.user,
                run.status,
                run.start_ns // 1_000_000,
                None if run.end_ns is None else run.end_ns // 1_000_000,
                "",
                "active",
                f"{experiment.artifact_location}/{run.id}/artifacts",
                experiment.id,
            )
        )

    def add_logged(self, logged: LoggedPart) -> None:
        """What is written on a run."""
        run_id, add = logged.run_id, self.rows
        add["params"] += [(key, value, run_id) for key, value in logged.params]
        add["tags"] += [(key, value, run_id) for key, value in logged.tags]
        add["first_tags"] += [(key, value, run_id) for key, value in logged.first_tags]
        metrics: list[tuple[Any, ...]] = []
        for key, number, timestamp_ms, step in logged.metrics:
            value, is_nan = finite(number)
            metrics.append((key, value, timestamp_ms, step, is_nan, run_id))
        add["metrics"] += metrics
        add["latest_metrics"] += metrics

    def add_trace(self, trace: TracePart, experiment: Experiment) -> None:
        """The rows of a trace, without its spans."""
        trace_id, start_ms = f"tr-{trace.root_id}", trace.start_ns // 1_000_000
        ended = trace.end_ns is not None
        state = ("OK" if trace.success else "ERROR") if ended else "IN_PROGRESS"
        self.rows["trace_info"].append(
            (
                trace_id,
                experiment.id,
                start_ms,
                None if trace.end_ns is None else trace.end_ns // 1_000_000 - start_ms,
                state,
                None,
                trace.request_preview,
                trace.response_preview,
                1,
                trace.name,
                trace.session_id,
                *[None] * 8,
            )
        )
        location = f"{experiment.artifact_location}/traces/{trace_id}/artifacts"
        tags = {
            "mlflow.artifactLocation": location,
            "mlflow.trace.spansLocation": "TRACKING_STORE",
            "feature": trace.feature,
        }
        metadata = {
            "mlflow.trace_schema.version": TRACE_SCHEMA_VERSION,
            "mlflow.trace.infoFinalized": "true" if ended else None,
            "mlflow.sourceRun": trace.run_id,
            "mlflow.trace.user": trace.user or None,
        }
        for table, values in (("trace_tags", tags), ("trace_request_metadata", metadata)):
            self.rows[table] += [(k, v, trace_id) for k, v in values.items() if v is not None]

    def add_span(self, span: SpanPart, experiment_id: int) -> None:
        """The row of a span."""
        root_id, ended = span.place.root_id, span.end_ns is not None
        parent_id = None if span.parent_id is None else span_id_of(span.parent_id)
        status = ("OK" if span.outcome.success else "ERROR") if ended else "UNSET"
        times = (span.start_ns, span.end_ns)
        content = span_content(
            root_id, span.id, span.parent_id, span.name, times, span.attributes, span.outcome
        )
        self.rows["spans"].append(
            (
                f"tr-{root_id}",
                experiment_id,
                span_id_of(span.id),
                parent_id,
                span.name,
                span.span_type,
                status,
                *times,
                content,
                *(None, None, None),
                _short(span.model),
                _short(span.provider),
            )
        )

    def told_apart(self) -> list[tuple[str, tuple[Any, ...]]]:
        """The rows that the chain covers: their tables, and what tells them apart there."""
        found: list[tuple[str, tuple[Any, ...]]] = []
        for rule, rows in self.rows.items():
            table = TABLES.get(rule, rule)
            if rows and (kept := KEPT.get(table)) is not None:
                columns = COLUMNS_OF.get(table) or COLUMNS[table]
                places = [columns.index(name) for name in (kept.owner, *kept.keys)]
                found += [(table, tuple([row[place] for place in places])) for row in rows]
        return found

    def add_record(self, made: Piece) -> None:
        """That the record is stored."""
        record, kind = made.record, type(made.record).__name__.lower()
        received_ms = time.time_ns() // 1_000_000
        self.rows["llm_records"].append((*made.key, record.id, kind, received_ms))


def insert_into(rule: str, mark: str) -> str:
    """The statement that writes rows with this rule, with the database's mark for a value."""
    table = TABLES.get(rule, rule)
    columns = COLUMNS_OF.get(table) or COLUMNS[table]
    marks = ", ".join([mark] * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) {RULES[rule]}"


def _short(value: str | None) -> str | None:
    return None if value is None else value.replace("\0", "\ufffd")[:MODEL_DIMENSION]
