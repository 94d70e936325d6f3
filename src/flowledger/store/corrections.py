"""Taking stored calls away, from MLflow's tables and ours, with the sums they were part of."""

from collections.abc import Sequence
from typing import Any

from flowledger.store import rollup
from flowledger.store.rollup_queue import queue_rebuilds
from flowledger.store.writers import Writer

__all__ = ["remove_rows", "sum_again", "sum_owners_again", "touched_days"]

MS_OF_A_DAY = 86_400_000
# Each table with the column that names a call, what refers to a row before the row itself.
OF_A_RUN = {
    "params": "run_uuid",
    "metrics": "run_uuid",
    "latest_metrics": "run_uuid",
    "tags": "run_uuid",
    "runs": "run_uuid",
    "llm_tags": "call_id",
    "llm_calls": "id",
}
OF_A_TRACE = {
    "entity_associations": "source_id",
    "spans": "trace_id",
    "trace_tags": "request_id",
    "trace_request_metadata": "request_id",
    "assessments": "trace_id",
    "trace_info": "request_id",
}


def remove_rows(writer: Writer, cursor: Any, ids: Sequence[str]) -> set[int]:
    """Delete all rows of these calls; returns the days, since 1970, whose sums no longer hold.

    Nobody else writes until the transaction ends, so `sum_again` sees every call.
    """
    touched = touched_days(writer, cursor, ids)
    traces = [f"tr-{call_id}" for call_id in ids]
    queue_rebuilds(writer, cursor, traces)
    for tables, names in ((OF_A_TRACE, traces), (OF_A_RUN, ids)):
        for table, column in tables.items():
            writer.among(cursor, f"DELETE FROM {table} WHERE {column} IN ({{ids}})", names)
    return touched


def touched_days(writer: Writer, cursor: Any, ids: Sequence[str]) -> set[int]:
    """The days, since 1970, of these calls; nobody else writes until the transaction ends."""
    writer.lock(cursor)
    days = f"SELECT DISTINCT start_ms / {MS_OF_A_DAY} FROM llm_calls WHERE id IN ({{ids}})"
    writer.among(cursor, days, ids)
    return {int(row[0]) for row in cursor.fetchall()}


def sum_again(cursor: Any, days: set[int]) -> None:
    """Make the sums of these days hold again."""
    for day in sorted(days):
        rollup.rebuild(cursor.execute, day, day)


def sum_owners_again(cursor: Any, days: set[int]) -> None:
    """Make the sums of these days hold again by what an erasure takes from a call."""
    for day in sorted(days):
        rollup.rebuild_facets(cursor.execute, day, ("user_id", "intent", "module"))
