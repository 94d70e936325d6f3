"""The chain of evidence: one link a transaction, each over the one before.

Appended last in a transaction, after everything that other writers may wait for, and held until the
commit: writers wait for each other here one after the other and never in a circle.
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import sqlalchemy as sa

from flowledger.store.leaves import (
    KEPT,
    OF_A_CALL,
    OF_A_PRODUCER,
    Kept,
    Leaves,
    RowLeaf,
    object_leaf,
    row_leaf,
)
from flowledger.store.rows import LEDGER

if TYPE_CHECKING:  # writers import the schema, whose steps begin a chain
    from flowledger.store.writers import Writer

__all__ = [
    "BEGINNING",
    "EVENTS",
    "FIRST",
    "STORING",
    "Link",
    "append",
    "begin_chain",
    "current_leaves",
    "row_leaves",
    "rows_of",
]

CHAIN_LOCK = 0x666C6F77636861
BEGINNING = "0" * 64
FIRST = "beginning"
STORING = ("batch", "jobs")
EVENTS = ("correction", "removal", "erasure", "purge")
COLUMNS = "number, kind, at_ms, records, note, leaves, hash"
SOME = 200
_encode = msgspec.msgpack.Encoder().encode


class Link(NamedTuple):
    """One link: what kind of change it proves, when, and the hash that covers all before it.

    `kind` is `FIRST`, or one of `STORING`, which add records, or of `EVENTS`, which change what was
    stored; `records` is how many it is about, and in the first how many calls are outside the log;
    the note of the first has the same of other tables.
    """

    number: int
    kind: str
    at_ms: int
    records: int
    note: str
    leaves: bytes
    hash: str

    def follows(self, previous: str) -> bool:
        """Whether this is what was written after the link with that hash."""
        return self.hash == self._replace(hash="").hashed(previous)

    def hashed(self, previous: str, leaves_sha256: str | None = None) -> str:
        """The hash of this link after that one; of its leaves their own hash is enough."""
        leaves = leaves_sha256 or hashlib.sha256(self.leaves).hexdigest()
        parts = (previous, self.number, self.kind, self.at_ms, self.records, leaves, self.note)
        return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def append(
    writer: "Writer", cursor: Any, kind: str, leaves: Leaves, note: dict[str, Any] | None = None
) -> None:
    """Add a link, as the last thing of the transaction that changed what it is about.

    Args:
        writer, cursor: the database, in that transaction.
        kind: of the change.
        leaves: what the records now are.
        note: who did it and why, where somebody did.
    """
    if "postgresql" in writer.engine.dialect.name:
        cursor.execute(f"SELECT pg_advisory_xact_lock({CHAIN_LOCK})")
    cursor.execute("SELECT number, hash, at_ms FROM llm_chain ORDER BY number DESC LIMIT 1")
    number, previous, before_ms = cursor.fetchone() or (0, BEGINNING, 0)
    link = Link(
        number=number + 1,
        kind=kind,
        # Never back, though the clocks of several machines differ: `verify` needs no tolerance.
        at_ms=max(before_ms, time.time_ns() // 1_000_000),
        records=leaves.size,
        note=msgspec.json.encode(note).decode() if note else "",
        leaves=_encode(leaves),
        hash="",
    )
    link = link._replace(hash=link.hashed(previous))
    marks = ", ".join([writer.mark] * len(link))
    cursor.execute(f"INSERT INTO llm_chain ({COLUMNS}) VALUES ({marks})", tuple(link))


def begin_chain(connection: sa.Connection) -> None:
    """Write the first entry, which says what was stored before there was a log."""
    there = {
        table: int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())
        for table in (LEDGER, *OF_A_PRODUCER)
    }
    calls = there.pop(LEDGER)
    note = msgspec.json.encode(there).decode() if any(there.values()) else ""
    link = Link(1, FIRST, time.time_ns() // 1_000_000, calls, note, _encode(Leaves()), "")
    names = COLUMNS.split(", ")
    marks = ", ".join(f":{name}" for name in names)
    row = dict(zip(names, link._replace(hash=link.hashed(BEGINNING)), strict=True))
    connection.execute(sa.text(f"INSERT INTO llm_chain ({COLUMNS}) VALUES ({marks})"), row)


def rows_of(
    writer: "Writer", cursor: Any, table: str, owners: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Every row of these owners in a table that the chain covers, with the columns it covers."""
    kept = KEPT[table]
    found: list[tuple[Any, ...]] = []
    statement = (
        f"SELECT {', '.join(kept.columns)} FROM {table}"
        f" WHERE {kept.owner} IN ({{ids}}){_ours(table)}"
    )
    for start in range(0, len(owners), SOME):
        writer.among(cursor, statement, owners[start : start + SOME])
        found += map(tuple, cursor.fetchall())
    return found


def current_leaves(writer: "Writer", cursor: Any, record_ids: Sequence[str]) -> Leaves:
    """The leaves of these records as they now stand in the database."""
    tables: dict[str, dict[str, list[Any]]] = {record_id: {} for record_id in record_ids}
    for table in OF_A_CALL:
        prefix = KEPT[table].prefix
        place = KEPT[table].columns.index(KEPT[table].owner)
        for row in rows_of(writer, cursor, table, [prefix + one for one in record_ids]):
            record_id = row[place].removeprefix(prefix)
            tables[record_id].setdefault(table, []).append(row)
    leaves = Leaves()
    for record_id, by_table in tables.items():
        object_leaf(leaves, record_id, by_table)
    return leaves


def row_leaves(
    writer: "Writer", cursor: Any, written: Iterable[tuple[str, tuple[Any, ...]]]
) -> list[RowLeaf]:
    """The leaves of single rows as they now stand.

    Args:
        writer, cursor: the database, in the transaction that wrote them.
        written: tables and what the rows are told apart by there: the owner, then `Kept.keys`.
    """
    by_table: dict[str, list[tuple[Any, ...]]] = {}
    for table, key in sorted(set(written), key=repr):
        by_table.setdefault(table, []).append(key)
    leaves: list[RowLeaf] = []
    for table, keys in by_table.items():
        leaves += _read_back(writer, cursor, table, KEPT[table], keys)
    return leaves


def _read_back(
    writer: "Writer", cursor: Any, table: str, kept: Kept, keys: list[tuple[Any, ...]]
) -> list[RowLeaf]:
    named = ", ".join((kept.owner, *kept.keys))
    one = f"({', '.join([writer.mark] * (len(kept.keys) + 1))})"
    leaves = []
    for start in range(0, len(keys), SOME):
        some = keys[start : start + SOME]
        cursor.execute(
            f"SELECT {', '.join(kept.columns)} FROM {table}"
            f" WHERE ({named}) IN (VALUES {', '.join([one] * len(some))})",
            [value for key in some for value in key],
        )
        rows = cursor.fetchall()
        leaves += [row_leaf(table, dict(zip(kept.columns, row, strict=True))) for row in rows]
    return leaves


def _ours(table: str) -> str:
    return " AND source_type = 'trace'" if table == "entity_associations" else ""
