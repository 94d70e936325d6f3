"""Putting another table of the same shape into the place of `llm_calls`, on PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from flowledger.errors import StoreMisconfigured
from flowledger.store.rows import LEDGER

__all__ = ["NEW", "execute", "replaced"]

NEW = f"{LEDGER}_new"
DEPENDENT_OBJECTS = "2BP01"  # PostgreSQL's code for what others still need
INDEXES = f"""
SELECT quote_ident(c.relname), quote_ident('old_' || c.oid), pg_get_indexdef(c.oid), i.indisprimary
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = '{LEDGER}'::regclass
"""
# Views of others are theirs to drop: PostgreSQL names them when the table is to go.
VIEWS = f"""
SELECT DISTINCT v.oid::regclass::text AS name, pg_get_viewdef(v.oid) AS made
FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
JOIN pg_class t ON t.oid = d.refobjid
WHERE d.refobjid = '{LEDGER}'::regclass AND v.relkind = 'v' AND v.relowner = t.relowner
"""
GRANTS = """
SELECT a.privilege_type, a.is_grantable,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = to_regclass(%s) AND a.grantee <> c.relowner
"""


@contextmanager
def replaced(connection: sa.Connection, how: str) -> Iterator[None]:
    """Put a table of the same shape, filled in the block, into the place of the ledger.

    Its indexes, views and grants are made anew. Readers go on with the old one until the end.

    Args:
        connection: in a transaction that nobody writes beside.
        how: what stands after the columns of the new table.
    """
    like = f"(LIKE {LEDGER} INCLUDING ALL EXCLUDING INDEXES)"
    execute(connection, f"CREATE TABLE {NEW} {like} {how}")
    yield
    _index(connection)
    execute(connection, f"ANALYZE {NEW}")
    _swap(connection)


def _index(connection: sa.Connection) -> None:
    """The same indexes under the same names, which the old ones give up."""
    for name, old, made, is_primary in connection.exec_driver_sql(INDEXES).all():
        execute(connection, f"ALTER INDEX {name} RENAME TO {old}")
        kind, columns = made.partition(f" {name} ")[0], made.partition(" USING ")[2]
        if is_primary:
            keys = columns.partition(" ")[2]
            execute(connection, f"ALTER TABLE {NEW} ADD CONSTRAINT {name} PRIMARY KEY {keys}")
        else:
            execute(connection, f"{kind} {name} ON {NEW} USING {columns}")


def _swap(connection: sa.Connection) -> None:
    views = connection.exec_driver_sql(VIEWS).all()
    names = [LEDGER, *(name for name, _ in views)]
    grants = [grant for name in names for grant in _grants(connection, name)]
    for name, _ in views:  # as questions do: the view first, then the table
        execute(connection, f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
    for name, _ in views:
        execute(connection, f"DROP VIEW {name}")
    try:
        execute(connection, f"DROP TABLE {LEDGER}")
    except sa.exc.DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) == DEPENDENT_OBJECTS:
            raise _needed_by_others(exc.orig) from exc
        raise
    execute(connection, f"ALTER TABLE {NEW} RENAME TO {LEDGER}")
    for name, made in views:
        execute(connection, f"CREATE VIEW {name} AS {made}")
    for grant in grants:
        execute(connection, grant)


def _grants(connection: sa.Connection, name: str) -> list[str]:
    found = connection.exec_driver_sql(GRANTS, (name,)).all()
    further = {True: " WITH GRANT OPTION", False: ""}
    return [f"GRANT {may} ON {name} TO {who}{further[passed]}" for may, passed, who in found]


def _needed_by_others(cause: object) -> StoreMisconfigured:
    detail = getattr(getattr(cause, "diag", None), "message_detail", None) or str(cause)
    return StoreMisconfigured(
        f"{' '.join(detail.split())}: drop what is yours there, run this again, and make it again"
    )


def execute(connection: sa.Connection, statement: str) -> int:
    """Run a statement whose colons and per cents are its own; returns how many rows it met."""
    return connection.execute(sa.text(statement.replace(":", r"\:"))).rowcount
