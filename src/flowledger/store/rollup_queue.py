"""Days that MLflow must sum up again: its own daily rollups, not the sums in `store/rollup.py`.

MLflow rolls whole days up once they are a day old, and reads the rollups from then on. Its writers
queue a day again when they change it, and so must everybody else who writes its tables.
Source: `enqueue_rollup_rebuild_partitions` in `mlflow.store.tracking.utils.sql_trace_rollups`.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from flowledger.store.writers import Writer

__all__ = ["queue_rebuilds"]

LAG_MS = 86_400_000  # MLflow's ROLLUP_ELIGIBILITY_LAG_MS
MS_OF_A_DAY = 86_400_000
SOURCES = (
    (("assessment", "trace_metric"), "trace_info", "request_id", "timestamp_ms"),
    (("span_cost",), "spans", "trace_id", "start_time_unix_nano / 1000000"),
)
# The update locks the row until the commit, so that a rebuild under way waits, and sees the rows.
QUEUE = (
    "INSERT INTO sql_trace_rollup_rebuild_queue (experiment_id, rollup_day, rollup_family)"
    " VALUES (?, ?, ?) ON CONFLICT (experiment_id, rollup_day, rollup_family)"
    " DO UPDATE SET rollup_family = excluded.rollup_family"
)


def queue_rebuilds(writer: Writer, cursor: Any, traces: Sequence[str]) -> None:
    """Queue the days of these traces, in the transaction that changes or deletes them.

    Nothing is queued where MLflow has no rollups, which are off by default.

    Args:
        writer, cursor: the database; the rows of the traces are there.
        traces: their ids.
    """
    cursor.execute("SELECT 1 FROM sql_trace_metric_daily_rollups LIMIT 1")
    if not traces or cursor.fetchone() is None:
        return
    latest_ms = time.time_ns() // 1_000_000 - LAG_MS
    keys: set[tuple[int, str, str]] = set()
    for families, table, column, time_ms in SOURCES:
        writer.among(
            cursor,
            f"SELECT DISTINCT experiment_id, {time_ms} / {MS_OF_A_DAY} * {MS_OF_A_DAY} FROM {table}"
            f" WHERE {column} IN ({{ids}}) AND experiment_id IS NOT NULL"
            f" AND {time_ms} <= {latest_ms}",
            list(traces),
        )
        for experiment_id, day_ms in cursor.fetchall():
            day = datetime.fromtimestamp(int(day_ms) / 1000, UTC).date().isoformat()
            keys.update((int(experiment_id), day, family) for family in families)
    if keys:
        cursor.executemany(QUEUE.replace("?", writer.mark), sorted(keys))
