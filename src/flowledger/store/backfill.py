"""Adding up calls that were stored without their sums.

They come from before there was a roll-up, or from an older flowledger that still wrote while a
newer one was started beside it.
"""

from typing import Any

import msgspec
import sqlalchemy as sa

from flowledger.store.derived import Derived, derive
from flowledger.store.entries import MAX_TAG, fitted, own_pairs
from flowledger.store.rollup import add_calls
from flowledger.store.rows import tag_rows

__all__ = ["repair", "sum_missing"]

AT_ONCE = 2_000

_next = (
    "SELECT id, experiment_id, feature, persona_id, provider, model, success, error_type,"
    " COALESCE(NULLIF(prompt_version, ''), prompt_hash) AS prompt_version, latency_ms,"
    " kind, parent_id, inner_calls, total_tokens, cost_usd, details"
    f" FROM llm_calls WHERE group_id IS NULL AND id > :after ORDER BY id LIMIT {AT_ONCE}"
)
_update = sa.text(
    "UPDATE llm_calls SET prompt_version = :prompt_version,"
    f" {', '.join(f'{name} = :{name}' for name in Derived._fields)} WHERE id = :id"
)
_tag = sa.text(
    "INSERT INTO llm_tags (key, value, call_id) VALUES (:key, :value, :call_id)"
    " ON CONFLICT DO NOTHING"
)
# Two who repair at once take different calls; SQLite has one writer at a time.
_FOR_US = {"sqlite": "", "postgresql": " FOR UPDATE SKIP LOCKED"}
_IDS = {
    "sqlite": "SELECT value FROM json_each(:ids)",
    "postgresql": "SELECT jsonb_array_elements_text(CAST(:ids AS jsonb))",
}


def sum_missing(connection: sa.Connection) -> int:
    """Derive what the roll-up needs of every call that is in no sum, and add it to the sums.

    Args:
        connection: in a transaction, which the caller commits.

    Returns:
        How many calls these were.
    """
    after, summed = "", 0
    while ids := _sum_some(connection, after):
        after, summed = ids[-1], summed + len(ids)
    return summed


def repair(engine: sa.Engine) -> int:
    """The same for some of them, in a transaction of its own beside others who store calls.

    Returns:
        How many calls these were; 0 once no call is missing from the sums.
    """
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        ids = _sum_some(connection, "")
        connection.commit()
    return len(ids)


def _sum_some(connection: sa.Connection, after: str) -> list[str]:
    dialect = connection.dialect.name
    question = sa.text(_next + _FOR_US[dialect]).columns(success=sa.Boolean())
    rows = connection.execute(question, {"after": after}).all()
    if not rows:
        return []
    derived = [_derived(row) for row in rows]
    connection.execute(_update, [columns for columns, _ in derived])
    if tags := [tag for _, tags in derived for tag in tags]:
        connection.execute(_tag, tags)
    ids = [row.id for row in rows]
    given = {"ids": msgspec.json.encode(ids).decode()}
    among = _IDS[dialect]
    add_calls(lambda query: connection.execute(sa.text(query.replace("{ids}", among)), given))
    return ids


def _derived(row: sa.Row[Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The columns of a call that follow from the others, and its rows of tags."""
    columns = dict(row._mapping)
    details = msgspec.json.decode(columns.pop("details"))
    call_id, tags = columns.pop("id"), details.get("tags", {})
    derived = derive(**columns, metrics=details.get("metrics", {}), tags=tags)._asdict()
    kept = [(key, fitted(value, MAX_TAG)) for key, value in own_pairs(tags, "tags", []).items()]
    named = [
        {"key": key, "value": value, "call_id": call_id}
        for key, value, _ in tag_rows(call_id, tags, kept)
    ]
    return {"id": call_id, "prompt_version": columns["prompt_version"], **derived}, named
