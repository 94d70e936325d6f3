"""Comparing the sums that every page shows with what the calls add up to.

Days are added up anew, a portion of them in one statement, which sees calls and sums of the same
moment: writers at work never look like tampering. The sums of a day follow from those of its hours.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from flowledger.audit.comparing import Difference
from flowledger.store.derived import group_of
from flowledger.store.rollup import (
    BOUNDS,
    FACETS,
    GROUPED,
    MEASURES,
    OF_LATENCIES,
    SUMS,
    key_text,
)
from flowledger.store.writers import Writer

__all__ = ["compare_sums"]

PORTION = 50_000
MOST_PROCESSES = 8
HOURS_OF_A_DAY = 24
MS_OF_AN_HOUR = 3_600_000
MS_OF_A_DAY = HOURS_OF_A_DAY * MS_OF_AN_HOUR
EVER = 1 << 31  # hours: no INTEGER is beyond
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# Doubles that are added in another order differ in their last digits, by the size of what is added;
# what can be negative may come to nothing though it is large.
CLOSE = "1e-9"
LEAST = "1e-200"  # PostgreSQL refuses to multiply down to nothing
SIZES = {"confidence": "1e3 * e.confidences", "template_match": "1e3 * e.template_matches"}
WIDE = ("user_id",)  # of so many values that calls hardly fall together
NARROW = tuple(name for name in FACETS if name not in WIDE)

_facets = ", ".join(f"'{name}'" for name in FACETS)
_added_up = ", ".join(
    f"{how}({name}) AS {name}" for name, how in {**dict.fromkeys(SUMS, "SUM"), **BOUNDS}.items()
)


Opened = AbstractContextManager[tuple[Writer, Any]]


class Days(NamedTuple):
    """Whole days, in hours since 1970: the first, and the one after the last."""

    start: int
    end: int


class _Table(NamedTuple):
    """A table of sums: its key after the span, what it adds up, and what a row of it is about."""

    key: tuple[str, ...]
    added_up: str
    about: str

    @property
    def measures(self) -> tuple[str, ...]:
        """The columns that are compared."""
        return MEASURES if self.added_up == _added_up else ("calls",)


TABLES = {
    "llm_rollup": _Table(
        ("start", "group_id"),
        _added_up,
        "COALESCE((SELECT 'feature ' || COALESCE(g.feature, '?') || ', model '"
        " || COALESCE(g.model, '?') FROM llm_groups g WHERE g.group_id = {row}.group_id),"
        " 'group ' || CAST({row}.group_id AS TEXT))",
    ),
    "llm_latencies": _Table(
        ("start", *OF_LATENCIES, "latency_bucket"),
        "SUM(calls) AS calls",
        "'feature ' || {row}.feature || ', model ' || {row}.model || ', bucket '"
        " || CAST({row}.latency_bucket AS TEXT)",
    ),
    "llm_facets": _Table(
        ("facet", "start", "value", "experiment_id", "feature"),
        _added_up,
        "{row}.facet || ' ' || {row}.value || ', feature ' || {row}.feature",
    ),
}


def compare_sums(
    tracking_uri: str, opened: Callable[[str], Opened], processes: int | None = None
) -> list[Difference]:
    """The first row of each table of sums that is not what the calls add up to, and wrong groups.

    Args:
        tracking_uri: the database.
        opened: opens it, in a transaction that sees one moment; of a module, so that other
            processes find it.
        processes: how many may add up at once; as many as there are processors when left out.
    """
    with opened(tracking_uri) as (_, cursor):
        found = list(_wrong_groups(cursor))
        portions = list(_days(cursor))
    processes = min(processes or os.cpu_count() or 1, MOST_PROCESSES, len(portions))
    work = [(tracking_uri, opened, days) for days in portions]
    if processes == 1:
        found += chain.from_iterable(map(_compare_days, work))
    else:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            found += chain.from_iterable(pool.map(_compare_days, work))
    return list({(one.table, one.what): one for one in reversed(found)}.values())


def _days(cursor: Any) -> Iterator[Days]:
    """All time, in portions of whole days by how many calls they have."""
    cursor.execute(
        f"SELECT start_ms / {MS_OF_A_DAY}, COUNT(*) FROM llm_calls GROUP BY 1 ORDER BY 1"
    )
    start, size = -EVER, 0
    for day, calls in cursor.fetchall():
        if size and size + calls > PORTION:
            yield Days(start, day * HOURS_OF_A_DAY)
            start, size = day * HOURS_OF_A_DAY, 0
        size += calls
    yield Days(start, EVER)


def _compare_days(work: tuple[str, Callable[[str], Opened], Days]) -> list[Difference]:
    """One row of each table that is not what the calls of these days add up to."""
    uri, opened, days = work
    bounds = {
        "first": days.start,
        "end": days.end,
        "first_ms": days.start * MS_OF_AN_HOUR,
        "end_ms": days.end * MS_OF_AN_HOUR,
    }
    found = []
    with opened(uri) as (_, cursor):
        for span, statement in ((1, _of_hours()), (HOURS_OF_A_DAY, _of_days())):
            cursor.execute(statement.format(**bounds))
            for table, what, start, about in cursor.fetchall():
                found.append(Difference(what, table, f"{about}, {_moment(span, start)}"))
    return found


def _wrong_groups(cursor: Any) -> Iterator[Difference]:
    """Groups that are not what their ids are hashes of, and those that a sum names and are gone."""
    cursor.execute(f"SELECT group_id, {', '.join(GROUPED)} FROM llm_groups ORDER BY group_id")
    for group_id, *columns in cursor.fetchall():
        if group_of(**dict(zip(GROUPED, columns, strict=True))) != group_id:
            yield Difference("changed", "llm_groups", f"group {group_id}")
    cursor.execute(
        "SELECT DISTINCT r.group_id FROM llm_rollup r LEFT JOIN llm_groups g"
        " ON g.group_id = r.group_id WHERE r.span = 24 AND g.group_id IS NULL ORDER BY 1"
    )
    for (group_id,) in cursor.fetchall():
        yield Difference("removed", "llm_groups", f"group {group_id}")


@cache
def _of_hours() -> str:
    """Compares the sums of hours with calls, of which it reads each once."""
    narrow = ", ".join(NARROW)
    facets = [_facet(name, "m" if name in WIDE else "narrow") for name in FACETS]
    return (
        "WITH m AS MATERIALIZED (SELECT hour AS start, group_id, latency_bucket, experiment_id,"
        f" {key_text('feature')}, {key_text('model')}, {', '.join((*FACETS, *MEASURES))}"
        " FROM llm_measured WHERE group_id IS NOT NULL"
        " AND start_ms >= {first_ms} AND start_ms < {end_ms}),"
        f" narrow AS MATERIALIZED (SELECT start, experiment_id, feature, {narrow}, {_added_up}"
        f" FROM m GROUP BY start, experiment_id, feature, {narrow}),"
        f" {_expected('llm_rollup', 'm')}, {_expected('llm_latencies', 'm')},"
        f" llm_facets_e AS MATERIALIZED ({' UNION ALL '.join(facets)})"
        f" {_differing(1)}"
    )


@cache
def _of_days() -> str:
    """Compares the sums of days with those of their hours."""
    parts = []
    for name, table in TABLES.items():
        day = "(start / 24) * 24 AS start"
        keys = ", ".join(day if key == "start" else key for key in table.key)
        others = ", ".join(table.measures)
        parts.append(
            f"{name}_h AS (SELECT {keys}, {others} FROM {name}"
            " WHERE span = 1 AND start >= {first} AND start < {end}"
            f"{f' AND facet IN ({_facets})' if 'facet' in table.key else ''})"
        )
        parts.append(_expected(name, f"{name}_h"))
    return f"WITH {', '.join(parts)} {_differing(HOURS_OF_A_DAY)}"


def _expected(name: str, source: str) -> str:
    keys = ", ".join(TABLES[name].key)
    query = f"SELECT {keys}, {TABLES[name].added_up} FROM {source} GROUP BY {keys}"
    return f"{name}_e AS MATERIALIZED ({query})"


def _facet(name: str, source: str) -> str:
    return (
        f"SELECT '{name}' AS facet, start, {key_text(name, 'value')}, experiment_id, feature,"
        f" {_added_up} FROM {source} GROUP BY start, 3, experiment_id, feature"
    )


def _differing(span: int) -> str:
    """One row of each table that is changed or removed, and one that was added."""
    found = []
    for name, table in TABLES.items():
        same = " AND ".join(["t.span = {}", *(f"t.{key} = e.{key}" for key in table.key)])
        joined = same.format(span)
        differs = " OR ".join(_differs(measure) for measure in table.measures)
        found.append(
            f"SELECT '{name}', CASE WHEN t.calls IS NULL THEN 'removed' ELSE 'changed' END,"
            f" e.start, {table.about.format(row='e')} FROM {name}_e e LEFT JOIN {name} t"
            f" ON {joined} WHERE t.calls IS NULL OR {differs} LIMIT 1"
        )
        there = f"t.span = {span} AND t.start >= {{first}} AND t.start < {{end}}"
        if "facet" in table.key:  # as the table is ordered
            there += f" AND t.facet IN ({_facets})"
        found.append(
            f"SELECT '{name}', 'added', t.start, {table.about.format(row='t')} FROM {name} t"
            f" LEFT JOIN {name}_e e ON {joined} WHERE {there} AND e.calls IS NULL AND"
            f" (SELECT COUNT(*) FROM {name} t WHERE {there}) > (SELECT COUNT(*) FROM {name}_e)"
            " LIMIT 1"
        )
    return " UNION ALL ".join(f"SELECT * FROM ({one}) found" for one in found)


def _differs(measure: str) -> str:
    there, expected = f"t.{measure}", f"e.{measure}"
    if SUMS.get(measure) != "DOUBLE PRECISION":
        return f"{there} <> {expected}"
    size = SIZES.get(measure, f"ABS({expected})")
    return f"ABS({there} - {expected}) > {CLOSE} * ({size} + {LEAST})"


def _moment(span: int, start: int) -> str:
    try:
        began = BEGINNING + timedelta(hours=start)
    except OverflowError:
        return f"hour {start} since 1970"
    return f"{began:%Y-%m-%d}" if span > 1 else f"{began:%Y-%m-%d %H}:00 UTC"
