"""Purging whole months: a partition of old calls alone is dropped, and not deleted row by row."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from flowledger.store.corrections import MS_OF_A_DAY
from flowledger.store.leaves import Leaves
from flowledger.store.partitions import Month, keep_ahead, look
from flowledger.store.rollup import rebuild
from flowledger.store.writers import Writer

__all__ = ["drop", "droppable", "more_than_a_row"]


def droppable(writer: Writer, before_ms: int) -> list[Month]:
    """The months of which this user may drop everything, since all of it began before a time.

    Calls that came late for a month that was not made then are moved there first.
    """
    keep_ahead(writer.engine)
    with writer.engine.connect() as connection:
        parts = look(connection)
    over = [month for month in parts.months if parts.ours and _ms(month.beyond) <= before_ms]
    with writer.transaction() as cursor:
        return [month for month in over if _is_older(cursor, month, before_ms)]


def more_than_a_row(month: Month) -> str:
    """A query of the calls of a month that have rows elsewhere, too, or a span in a job's trace."""
    first, beyond = month.first, month.beyond
    return (
        f"FROM {month.table} c WHERE c.id IN ("
        f"SELECT run_uuid FROM runs WHERE run_uuid >= '{first}' AND run_uuid < '{beyond}'"
        " UNION ALL SELECT substr(request_id, 4) FROM trace_info"
        f" WHERE request_id >= 'tr-{first}' AND request_id < 'tr-{beyond}'"
        f" UNION ALL SELECT id FROM {month.table}"
        " WHERE parent_id IS NOT NULL AND EXISTS (SELECT 1 FROM spans))"
    )


def drop(cursor: Any, month: Month, before_ms: int) -> Leaves | None:
    """Drop the partition of a month whose calls have no row elsewhere.

    Args:
        cursor: in a transaction.
        month: its ids.
        before_ms: Unix milliseconds before which all of it must have begun.

    Returns:
        What the chain is to say of it; None when something came that keeps it from being dropped.
    """
    cursor.execute("LOCK TABLE llm_calls IN EXCLUSIVE MODE")
    cursor.execute(f"SELECT 1 {more_than_a_row(month)} LIMIT 1")
    if cursor.fetchone() or not _is_older(cursor, month, before_ms):
        return None
    cursor.execute(f"SELECT count(*) FROM {month.table}")
    calls, days = int(cursor.fetchone()[0]), _days(cursor, month)
    within = f"call_id >= '{month.first}' AND call_id < '{month.beyond}'"
    cursor.execute(f"DELETE FROM llm_tags WHERE {within}")
    cursor.execute(f"DROP TABLE {month.table}")
    for first_day, last_day in _runs(days):
        rebuild(cursor.execute, first_day, last_day)
    swept = (bytes.fromhex(month.first), bytes.fromhex(month.beyond), calls)
    return Leaves(swept=[swept])


def _is_older(cursor: Any, month: Month, before_ms: int) -> bool:
    """Whether all of its calls began before then; an id may say another time than its call."""
    cursor.execute(f"SELECT max(start_ms) FROM {month.table}")
    last = cursor.fetchone()[0]
    return last is None or last < before_ms


def _days(cursor: Any, month: Month) -> list[int]:
    """The days its calls began, from one to the next in the index of their times."""
    days: list[int] = []
    after = 0
    while True:
        cursor.execute(f"SELECT min(start_ms) FROM {month.table} WHERE start_ms >= {after}")
        found = cursor.fetchone()[0]
        if found is None:
            return days
        days.append(found // MS_OF_A_DAY)
        after = (days[-1] + 1) * MS_OF_A_DAY


def _runs(days: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and last of days that follow each other: few statements, for nothing is left."""
    for _, run in groupby(enumerate(days), lambda one: one[1] - one[0]):
        some = [day for _, day in run]
        yield some[0], some[-1]


def _ms(record_id: str) -> int:
    return int(record_id[:12], 16)
