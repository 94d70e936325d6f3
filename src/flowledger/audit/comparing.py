"""Comparing what stands in the database with the leaves of the chain."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from flowledger.audit.archived import ARCHIVED_TABLES, Archived
from flowledger.audit.texts import texts_between
from flowledger.store.chain import rows_of
from flowledger.store.leaves import (
    KEPT,
    NAMED,
    OF_A_CALL,
    OF_A_PRODUCER,
    RowLeaf,
    cell,
    digest_of_record,
    key_hash,
    text_digest,
)
from flowledger.store.writers import Writer

__all__ = ["CHAIN", "Compared", "Difference", "compare_records", "compare_rows", "judged"]

CHAIN = "llm_chain"
AT_ONCE = 2_000
OTHERS = 3
Expected = Mapping[str, tuple[bytes, bytes]]


class Difference(NamedTuple):
    """A record that is not as it was stored: which, in which table, and what happened to it."""

    what: str
    table: str
    id: str


class Compared(NamedTuple):
    """What a comparison found; `added` counts rows that others added by MLflow's own means.

    `unproven` are traces that MLflow archived where their spans can no longer be read.
    """

    differences: list[Difference]
    added: Counter[str]
    unproven: set[str]


def compare_records(writer: Writer, cursor: Any, expected: Mapping[str, Expected]) -> Compared:
    """Compare records with their leaves.

    Args:
        writer, cursor: the database.
        expected: by record: hashes of keys and digest by table; none for one that must be gone.
    """
    found = Compared([], Counter(), set())
    ids = sorted(expected)
    for start in range(0, len(ids), AT_ONCE):
        some = ids[start : start + AT_ONCE]
        dense = _is_dense(writer, cursor, some)
        for table in OF_A_CALL:
            suspects = _suspects(writer, cursor, table, some, expected) if dense else some
            if suspects:
                _look_closer(writer, cursor, table, suspects, expected, found)
    return found


def compare_rows(
    writer: Writer, cursor: Any, expected: Iterable[RowLeaf], outside: Mapping[str, int]
) -> Compared:
    """Compare single rows with their leaves; rows of processes that have none were added.

    Args:
        writer, cursor: the database.
        expected: the leaves.
        outside: how many rows of a table are older than the log.
    """
    found = Compared([], Counter(), set())
    wanted: dict[str, dict[tuple[str, bytes], bytes]] = {table: {} for table in OF_A_PRODUCER}
    for leaf in expected:
        wanted.setdefault(leaf.table, {})[leaf.owner, leaf.key] = leaf.digest
    for table, digests in sorted(wanted.items()):
        there = _stored_rows(writer, cursor, table, digests, found.unproven)
        for key, digest in digests.items():
            if there.get(key) != digest:
                what = "changed" if key in there else "removed"
                found.differences.append(Difference(what, table, key[0]))
        unknown = [owner for owner, key in there if (owner, key) not in digests]
        if table in OF_A_PRODUCER and len(unknown) > outside.get(table, 0):
            added = [Difference("added", table, one) for one in dict.fromkeys(unknown)]
            found.differences.extend(added)
    return found


def _archived(writer: Writer, cursor: Any, table: str, owners: Sequence[str]) -> Archived:
    return Archived(writer, cursor, owners if table in ARCHIVED_TABLES else ())


def _stored_rows(
    writer: Writer,
    cursor: Any,
    table: str,
    wanted: Mapping[tuple[str, bytes], bytes],
    unproven: set[str],
) -> dict[tuple[str, bytes], bytes]:
    """The digests of rows by owner and key: of all where nobody else may add any."""
    kept = KEPT[table]
    owners = sorted({kept.prefix + owner for owner, _ in wanted})
    archived = _archived(writer, cursor, table, owners)
    if table in OF_A_PRODUCER:
        cursor.execute(f"SELECT {', '.join(kept.columns)} FROM {table}")
        rows: Iterable[Any] = cursor
    else:
        rows = rows_of(writer, cursor, table, owners)
    there: dict[tuple[str, bytes], bytes] = {}
    for row in rows:
        named = dict(zip(kept.columns, row, strict=True))
        key = key_hash([cell(named[name]) for name in kept.keys])
        owner = str(named[kept.owner]).removeprefix(kept.prefix)
        digest = digest_of_record(table, [row])[1]
        trace = kept.prefix + owner
        if digest != wanted.get((owner, key)) and trace in archived.locations:
            stored = archived.as_stored(table, trace, [row])
            if stored is None:
                unproven.add(owner)  # and what cannot be read is no difference
                digest = wanted.get((owner, key), digest)
            else:
                digest = digest_of_record(table, stored)[1]
        there[owner, key] = digest
    return there


def _suspects(
    writer: Writer, cursor: Any, table: str, ids: Sequence[str], expected: Mapping[str, Expected]
) -> list[str]:
    """Records whose text in a table is not the one their digest is of."""
    texts = texts_between(writer, cursor, table, ids[0], ids[-1])
    there = {record_id: text_digest(text) for record_id, text in texts}
    wanted = {one: tables[table][1] for one in ids if table in (tables := expected[one])}
    if wanted == there:
        return []
    return [one for one in ids if wanted.get(one) != there.get(one)]


def _is_dense(writer: Writer, cursor: Any, ids: Sequence[str]) -> bool:
    """Whether there are few other records between the first and the last of these."""
    mark = writer.mark
    cursor.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM llm_calls WHERE id BETWEEN {mark} AND {mark}"
        f" LIMIT {OTHERS * len(ids) + 1}) found",
        (ids[0], ids[-1]),
    )
    return int(cursor.fetchone()[0]) <= OTHERS * len(ids)


def _look_closer(
    writer: Writer,
    cursor: Any,
    table: str,
    suspects: Sequence[str],
    expected: Mapping[str, Expected],
    found: Compared,
) -> None:
    """Read these records row by row, and say what is wrong with them, if anything is."""
    kept = KEPT[table]
    place = kept.columns.index(kept.owner)
    owners = sorted(kept.prefix + one for one in suspects)
    rows = sorted(rows_of(writer, cursor, table, owners), key=itemgetter(place))
    there = {
        owner.removeprefix(kept.prefix): list(some)
        for owner, some in groupby(rows, itemgetter(place))
    }
    archived = _archived(writer, cursor, table, owners)
    for record_id in suspects:
        keys, digest = expected[record_id].get(table, (b"", b""))
        rows = there.get(record_id, [])
        what, others = judged(table, record_id, rows, keys, digest)
        if what == "changed" and (trace := kept.prefix + record_id) in archived.locations:
            stored = archived.as_stored(table, trace, rows)
            if stored is None:
                found.unproven.add(record_id)
                continue
            what, others = judged(table, record_id, stored, keys, digest)
        if others:
            found.added[table] += others
        if what:
            found.differences.append(Difference(what, table, record_id))


def judged(
    table: str, record_id: str, rows: list[Any], keys: bytes, digest: bytes
) -> tuple[str, int]:
    """What happened to a record's rows in a table, if anything, and how many others added.

    Args:
        table, record_id: whose rows.
        rows: in the order of `Kept.columns`.
        keys, digest: what their leaf says; empty where there were none.
    """
    ours, others = _told_apart(table, record_id, rows, keys, bool(digest))
    return _what_happened(table, ours, keys, digest), len(others)


def _told_apart(
    table: str, record_id: str, rows: list[Any], keys: bytes, is_expected: bool
) -> tuple[list[Any], list[Any]]:
    """Rows that we wrote, and those that others added since."""
    if table == "entity_associations":
        mine = [row for row in rows if row[0] == record_id] if is_expected else []
        return mine, [row for row in rows if row not in mine]
    if table not in NAMED:
        return rows, []
    wanted = Counter(keys[start : start + 8] for start in range(0, len(keys), 8))
    key_place = KEPT[table].columns.index("key")
    ours: list[Any] = []
    others: list[Any] = []
    # Of several values of a metric ours came first.
    for row in sorted(rows, key=lambda row: tuple(map(str, row[2:4]))):
        key = key_hash([cell(row[key_place])])
        wanted[key] -= 1
        (ours if wanted[key] >= 0 else others).append(row)
    return ours, others


def _what_happened(table: str, ours: list[Any], keys: bytes, digest: bytes) -> str:
    if not ours:
        return "removed" if digest else ""
    if not digest:
        return "added"
    if digest_of_record(table, ours)[1] == digest:
        return ""
    return "removed" if table in NAMED and len(ours) * 8 < len(keys) else "changed"
