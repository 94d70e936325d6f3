"""The roll-up: sums over calls by hour and day, true at the end of every transaction.

`llm_measured` says what a call adds to them. Added up here are the calls of one transaction, or all
calls of some days anew when one of them was changed or deleted.
"""

from collections.abc import Callable, Sequence

__all__ = [
    "BOUNDS",
    "FACETS",
    "GROUPED",
    "LONGEST",
    "MEASURES",
    "OF_LATENCIES",
    "ROLLED_UP",
    "SUMS",
    "add_calls",
    "key_text",
    "rebuild",
    "rebuild_facets",
    "value_of_key",
]

HOURS_OF_A_DAY = 24
MS_OF_AN_HOUR = 3_600_000
LONGEST = 250  # characters of a key: PostgreSQL's indexes take 2,704 bytes
# What a group is a combination of, and what calls are summed by one at a time.
GROUPED = (
    "experiment_id",
    "feature",
    "persona_id",
    "provider",
    "model",
    "prompt_version",
    "dspy_version",
    "success",
    "error_type",
)
FACETS = ("user_id", "user_role", "environment", "operation", "kind", "intent", "module")
OF_LATENCIES = ("experiment_id", "feature", "model")
# What is summed, with its type, and what is the least or greatest of all.
SUMS = {
    "calls": "BIGINT",
    "failed": "BIGINT",
    "counted": "BIGINT",
    "input_tokens": "BIGINT",
    "output_tokens": "BIGINT",
    "total_tokens": "BIGINT",
    "priced": "BIGINT",
    "unpriced": "BIGINT",
    "cost_usd": "DOUBLE PRECISION",
    "estimated": "BIGINT",
    "estimated_cost_usd": "DOUBLE PRECISION",
    "latency_ms": "DOUBLE PRECISION",
    "latency_squared": "DOUBLE PRECISION",
    "confidences": "BIGINT",
    "confidence": "DOUBLE PRECISION",
    "confidence_squared": "DOUBLE PRECISION",
    "template_matches": "BIGINT",
    "template_match": "DOUBLE PRECISION",
}
BOUNDS = {"first_ms": "MIN", "last_ms": "MAX"}
MEASURES = (*SUMS, *BOUNDS)
ROLLED_UP = ("llm_rollup", "llm_latencies", "llm_facets")

_measures = ", ".join(MEASURES)
_added_up = ", ".join(
    [*(f"SUM({name})" for name in SUMS), *(f"{how}({name})" for name, how in BOUNDS.items())]
)
_grouped = ", ".join(f"m.{name}" for name in GROUPED)
_spans = "CROSS JOIN (SELECT 1 AS span UNION ALL SELECT 24) spans"
_start = "(hour / span) * span AS start"


def key_text(expression: str, name: str = "") -> str:
    """A text as part of a key, under its own name or this one: cut, and empty where there is none.

    An empty key is a missing value: `derived.dimension_text` stores no empty text.
    """
    return f"COALESCE(SUBSTR({expression}, 1, {LONGEST}), '') AS {name or expression}"


def value_of_key(expression: str, name: str = "") -> str:
    """The text that `key_text` made a key of; NULL where there was none."""
    return f"NULLIF({expression}, '') AS {name or expression}"


def _upsert(table: str, key: tuple[str, ...], measures: tuple[str, ...], select: str) -> str:
    """Add to the sums of a table; in order, so that two transactions never wait in a circle."""
    keys, names = ", ".join(key), ", ".join(measures)
    added = ", ".join(f"{name} = {_together(table, name)}" for name in measures)
    return (
        f"INSERT INTO {table} ({keys}, {names}) {select} GROUP BY {keys} ORDER BY {keys}"
        f" ON CONFLICT ({keys}) DO UPDATE SET {added}"
    )


def _together(table: str, name: str) -> str:
    there, new = f"{table}.{name}", f"excluded.{name}"
    if name not in BOUNDS:
        return f"{there} + {new}"
    sign = "<" if BOUNDS[name] == "MIN" else ">"
    return f"CASE WHEN {new} {sign} {there} THEN {new} ELSE {there} END"


def _facet_sums(names: Sequence[str]) -> str:
    """Adds to the sums of these facets."""
    facets = " UNION ALL ".join(f"SELECT '{name}' AS facet" for name in names)
    value = " ".join(f"WHEN '{name}' THEN {name}" for name in names)
    return _upsert(
        "llm_facets",
        ("span", "facet", "start", "value", "experiment_id", "feature"),
        MEASURES,
        f"SELECT span, facet, {_start}, value, experiment_id, feature, {_added_up} FROM ("
        f"SELECT hour, facet, {key_text(f'CASE facet {value} END', 'value')},"
        f" experiment_id, {key_text('feature')}, {_measures}"
        f" FROM llm_measured CROSS JOIN ({facets}) facets WHERE id IN ({{ids}})"
        f") faceted {_spans} WHERE 1 = 1",
    )


# `{ids}` stands for a query of the ids to add.
STATEMENTS = (
    f"INSERT INTO llm_groups (group_id, {', '.join(GROUPED)})"
    f" SELECT DISTINCT m.group_id, {_grouped} FROM llm_measured m WHERE m.id IN ({{ids}})"
    " ORDER BY m.group_id ON CONFLICT (group_id) DO NOTHING",
    _upsert(
        "llm_rollup",
        ("span", "start", "group_id"),
        MEASURES,
        f"SELECT span, {_start}, group_id, {_added_up}"
        f" FROM llm_measured {_spans} WHERE id IN ({{ids}})",
    ),
    _upsert(
        "llm_latencies",
        ("span", "start", *OF_LATENCIES, "latency_bucket"),
        ("calls",),
        f"SELECT span, {_start}, {', '.join(OF_LATENCIES)}, latency_bucket, SUM(calls) FROM ("
        f"SELECT hour, experiment_id, {key_text('feature')}, {key_text('model')},"
        f" latency_bucket, calls FROM llm_measured WHERE id IN ({{ids}}))"
        f" measured {_spans} WHERE 1 = 1",
    ),
    _facet_sums(FACETS),
)


def add_calls(execute: Callable[[str], object]) -> None:
    """Add calls that were just inserted.

    Args:
        execute: runs a statement in the transaction, with `{ids}` put in place.
    """
    for statement in STATEMENTS:
        execute(statement)


def rebuild(execute: Callable[[str], object], first_day: int, last_day: int) -> None:
    """Add up all calls of some days anew, in a transaction that no other one writes beside.

    Args:
        execute: runs a statement in the transaction.
        first_day: days since 1970.
        last_day: included.
    """
    hours, ids = _days(first_day, last_day)
    for table in ROLLED_UP:
        execute(f"DELETE FROM {table} WHERE {hours}")
    for statement in STATEMENTS:
        execute(statement.replace("{ids}", ids))


def rebuild_facets(execute: Callable[[str], object], day: int, names: Sequence[str]) -> None:
    """The same of one day, for what only these facets know of a call."""
    hours, ids = _days(day, day)
    named = ", ".join(f"'{name}'" for name in names)
    execute(f"DELETE FROM llm_facets WHERE facet IN ({named}) AND {hours}")
    execute(_facet_sums(names).replace("{ids}", ids))


def _days(first_day: int, last_day: int) -> tuple[str, str]:
    """Which sums are of these days, and a query of the ids of their calls."""
    first, beyond = first_day * HOURS_OF_A_DAY, (last_day + 1) * HOURS_OF_A_DAY
    return (
        f"start >= {first} AND start < {beyond}",
        f"SELECT id FROM llm_calls WHERE start_ms >= {first * MS_OF_AN_HOUR}"
        f" AND start_ms < {beyond * MS_OF_AN_HOUR}",
    )
