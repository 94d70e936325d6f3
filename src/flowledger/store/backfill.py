"""Filling the roll-up from calls that were stored before there was one."""

from typing import Any

import msgspec
import sqlalchemy as sa

from flowledger.store import rollup
from flowledger.store.derived import Derived, derive

__all__ = ["roll_up_all"]

MS_OF_A_DAY = 86_400_000
AT_ONCE = 2_000

_next = sa.text(
    "SELECT id, experiment_id, feature, persona_id, provider, model, success, error_type,"
    " COALESCE(NULLIF(prompt_version, ''), prompt_hash) AS prompt_version, latency_ms, details"
    f" FROM llm_calls WHERE id > :after ORDER BY id LIMIT {AT_ONCE}"
).columns(success=sa.Boolean())
_update = sa.text(
    "UPDATE llm_calls SET prompt_version = :prompt_version,"
    f" {', '.join(f'{name} = :{name}' for name in Derived._fields)} WHERE id = :id"
)


def roll_up_all(connection: sa.Connection) -> None:
    """Derive what the roll-up needs of every call, and add all of them up.

    Args:
        connection: in a transaction, which the caller commits.
    """
    after = ""
    while rows := connection.execute(_next, {"after": after}).all():
        connection.execute(_update, [{"id": row.id, **_derived(row)} for row in rows])
        after = rows[-1].id
    days = f"SELECT MIN(start_ms) / {MS_OF_A_DAY}, MAX(start_ms) / {MS_OF_A_DAY} FROM llm_calls"
    first, last = connection.exec_driver_sql(days).one()
    if first is not None:
        rollup.rebuild(connection.exec_driver_sql, first, last)


def _derived(row: sa.Row[Any]) -> dict[str, Any]:
    columns = dict(row._mapping)
    details = msgspec.json.decode(columns.pop("details"))
    del columns["id"]
    own = {"metrics": details.get("metrics", {}), "tags": details.get("tags", {})}
    derived = derive(**columns, **own)._asdict()
    return {"prompt_version": columns["prompt_version"], **derived}
