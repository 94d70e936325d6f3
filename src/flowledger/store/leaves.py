"""Leaves of the chain: what a record's rows are, table by table, in 16 bytes each.

Pure. The digest of a table is over the text of its rows in the order of their keys, and a database
makes the same text by itself (`audit/texts.py`), so that a million calls can be compared without
moving every value. Numbers count to 15 significant digits, which is what databases agree on.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from flowledger.store.rows import COLUMNS, LEDGER

__all__ = [
    "KEPT",
    "NAMED",
    "OF_A_CALL",
    "OF_A_PRODUCER",
    "PRESENT",
    "SEPARATOR",
    "Kept",
    "Leaves",
    "RowLeaf",
    "cell",
    "digest_of_record",
    "key_hash",
    "leaves_of",
    "object_leaf",
    "row_leaf",
    "text_digest",
]

SEPARATOR = "\x1f"
# Before each value, so that NULL, which is the empty text alone, is no text that a cell can have.
PRESENT = "="
NEXT = SEPARATOR + PRESENT
DIGEST_BYTES = 16
KEY_BYTES = 8
RECORDS = ("producer_id", "seq", "id", "kind")
GAPS = ("producer_id", "first_seq", "last_seq", "dropped", "reason")


# Rows of jobs that an application may set at any time, and counts that grow.
REWRITTEN = ("tags", "latest_metrics", "llm_gaps")
# The column, and its value, by which a row shows that its end is still to be written.
OPEN: dict[str, tuple[str, Any]] = {
    "runs": ("status", "RUNNING"),
    "trace_info": ("status", "IN_PROGRESS"),
    "spans": ("end_time_unix_nano", None),
}


class Kept(NamedTuple):
    """How a table's rows belong to a record.

    `owner` is the column that names the record, `keys` tell its rows apart (none where there is one
    row), `prefix` stands before the record's id, `open_to_others` says that people add rows there
    with MLflow's own means.
    """

    owner: str
    columns: tuple[str, ...]
    keys: tuple[str, ...] = ()
    prefix: str = ""
    open_to_others: bool = False

    @property
    def cells(self) -> tuple[str, ...]:
        """The columns a digest covers: all that we write but the owner."""
        return tuple(name for name in self.columns if name != self.owner)


KEPT: dict[str, Kept] = {
    "runs": Kept("run_uuid", COLUMNS["runs"]),
    "params": Kept("run_uuid", COLUMNS["params"], ("key",), open_to_others=True),
    "metrics": Kept(
        "run_uuid", COLUMNS["metrics"], ("key", "timestamp", "step", "value"), open_to_others=True
    ),
    "latest_metrics": Kept("run_uuid", COLUMNS["latest_metrics"], ("key",), open_to_others=True),
    "tags": Kept("run_uuid", COLUMNS["tags"], ("key",), open_to_others=True),
    "trace_info": Kept("request_id", COLUMNS["trace_info"], prefix="tr-"),
    "trace_tags": Kept("request_id", COLUMNS["trace_tags"], ("key",), "tr-", open_to_others=True),
    "trace_request_metadata": Kept(
        "request_id", COLUMNS["trace_request_metadata"], ("key",), "tr-", open_to_others=True
    ),
    "spans": Kept("trace_id", COLUMNS["spans"], ("span_id",), "tr-"),
    "entity_associations": Kept(
        "source_id",
        COLUMNS["entity_associations"],
        ("association_id",),
        "tr-",
        open_to_others=True,
    ),
    LEDGER: Kept("id", COLUMNS[LEDGER]),
    "llm_tags": Kept("call_id", COLUMNS["llm_tags"], ("key", "value")),
    "llm_records": Kept("producer_id", RECORDS, ("seq",)),
    "llm_producers": Kept("id", COLUMNS["llm_producers"]),
    "llm_gaps": Kept("producer_id", GAPS, ("first_seq",)),
    "llm_rejected": Kept("producer_id", ("producer_id", "seq"), ("seq",)),
}
# What says which numbers of a process have come: each row of it must be in the log.
OF_A_PRODUCER = ("llm_records", "llm_producers", "llm_gaps", "llm_rejected")
OF_A_CALL = tuple(name for name in KEPT if name not in OF_A_PRODUCER)
# Where people add rows of their own, ours are known by their keys, which few shapes name for all.
NAMED = tuple(name for name, kept in KEPT.items() if kept.open_to_others and kept.keys[0] == "key")


class RowLeaf(msgspec.Struct, frozen=True, array_like=True):
    """One row of a record that is written more than once, such as a job.

    `final` says that flowledger never writes the row again, unless an event of the log says so.
    """

    table: str
    owner: str
    key: bytes
    digest: bytes
    final: bool

    def is_of(self, written: tuple[str, tuple[Any, ...]]) -> bool:
        """Whether it is the leaf of that row, told by its table, owner and keys."""
        table, (owner, *keys) = written
        return (self.table, self.owner, self.key) == (table, owner, key_hash([*map(cell, keys)]))


class Leaves(msgspec.Struct, array_like=True):
    """The leaves of one link.

    `shapes` are the combinations of tables, with hashes of the keys in each, that its records have;
    `records` are (id, place of its shape, digests in the order of that shape), `rows` single rows.
    `swept` are ranges of ids whose calls are all gone: (first, the one after the last, how many).
    """

    shapes: list[list[tuple[str, bytes]]] = msgspec.field(default_factory=list)
    records: list[tuple[bytes, int, bytes]] = msgspec.field(default_factory=list)
    rows: list[RowLeaf] = msgspec.field(default_factory=list)
    swept: list[tuple[bytes, bytes, int]] = msgspec.field(default_factory=list)

    @property
    def size(self) -> int:
        """How many records they are about."""
        return len(self.records) + len(self.rows) + sum(calls for _, _, calls in self.swept)

    def sweep(self, record_id: bytes) -> bool:
        """Whether a call of that id was taken out with others around it."""
        return any(first <= record_id < beyond for first, beyond, _ in self.swept)

    def digests(self, shape: int, digests: bytes) -> dict[str, tuple[bytes, bytes]]:
        """By table: hashes of the keys, and the digest."""
        return {
            table: (keys, digests[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES])
            for place, (table, keys) in enumerate(self.shapes[shape])
        }


def cell(value: Any) -> str:
    """A value that is not NULL as databases write it, too."""
    return value if type(value) is str else _CELLS.get(type(value), str)(value)


def _number(value: float) -> str:
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else f"{value:.15g}"


_CELLS: dict[type, Callable[[Any], str]] = {
    bool: lambda value: "1" if value else "0",
    float: _number,
}


def digest_of(rows: Sequence[Sequence[str]]) -> bytes:
    """The digest of a record's rows in one table, their cells as text and in order."""
    text = SEPARATOR.join([SEPARATOR.join(row) for row in rows])
    found = _digest_of_text(text, len(rows), len(rows[0]))
    # A text that holds the separator itself could be cut in two ways.
    return found or _digest(b"\0" + msgspec.json.encode(rows))


def _digest_of_text(text: str, rows: int, cells: int) -> bytes:
    """The digest of cells joined by separators; empty when there is one inside of a cell."""
    if text.count(SEPARATOR) != rows * cells - 1:
        return b""
    return _digest(f"{rows}{SEPARATOR}{text}".encode("utf-8", "surrogatepass"))


def text_digest(text: bytes) -> bytes:
    """The digest of a text that a database made of rows."""
    return _digest(text)


def digest_of_record(table: str, rows: Sequence[Sequence[Any]]) -> tuple[tuple[str, ...], bytes]:
    """The keys and the digest of a record's rows in one table, as `Kept.columns` orders them."""
    return _read_any(table, list(rows))


def key_hash(keys: Sequence[str]) -> bytes:
    """A few bytes that stand for what names a row, so that no text is in the chain."""
    text = SEPARATOR.join(keys).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()[:KEY_BYTES]


def row_leaf(table: str, row: Mapping[str, Any]) -> RowLeaf:
    """The leaf of one row, given by the names of its columns."""
    kept = KEPT[table]
    return RowLeaf(
        table=table,
        owner=str(row[kept.owner]).removeprefix(kept.prefix),
        key=key_hash([cell(row[name]) for name in kept.keys]),
        digest=digest_of_record(table, [[row[name] for name in kept.columns]])[1],
        final=table not in REWRITTEN and not _is_open(table, row),
    )


def _is_open(table: str, row: Mapping[str, Any]) -> bool:
    """Whether the row of a job or span still waits for its end, as `RULES` of `job_rows` has it."""
    if table not in OPEN:
        return False
    column, value = OPEN[table]
    return bool(row[column] == value)


def object_leaf(leaves: Leaves, record_id: str, tables: Mapping[str, Sequence[Any]]) -> None:
    """Add the leaf of a record whose rows were read back; without rows it is gone.

    Args:
        leaves: it is added here.
        record_id: in hex.
        tables: rows by table, in the order of `Kept.columns`.
    """
    parts = [(table, *_read_any(table, list(rows))) for table, rows in tables.items() if rows]
    shape = [(table, b"".join(key_hash([key]) for key in keys)) for table, keys, _ in parts]
    if shape not in leaves.shapes:
        leaves.shapes.append(shape)
    digests = b"".join(digest for _, _, digest in parts)
    leaves.records.append((bytes.fromhex(record_id), leaves.shapes.index(shape), digests))


def leaves_of(by_table: Mapping[str, Sequence[tuple[Any, ...]]]) -> Leaves:
    """The leaves of a batch of new calls.

    Args:
        by_table: the rows that are written, those of a call beside each other.
    """
    found: dict[str, list[tuple[str, tuple[str, ...], bytes]]] = defaultdict(list)
    for table in OF_A_CALL:
        rows = by_table.get(table)
        if not rows:
            continue
        if table == "latest_metrics" and rows == by_table["metrics"]:
            for parts in found.values():  # the same rows, so the same digests
                parts += [("latest_metrics", *part[1:]) for part in parts if part[0] == "metrics"]
            continue
        cut, read = len(KEPT[table].prefix), READ.get(table, _read_any)
        place = KEPT[table].columns.index(KEPT[table].owner)
        for owner, some in groupby(rows, itemgetter(place)):
            found[owner[cut:]].append((table, *read(table, list(some))))
    leaves, places = Leaves(), dict[tuple[Any, ...], int]()
    for record_id, parts in found.items():
        shape = tuple((table, keys) for table, keys, _ in parts)
        if shape not in places:
            places[shape] = len(leaves.shapes)
            hashed = [(table, b"".join(key_hash([k]) for k in keys)) for table, keys in shape]
            leaves.shapes.append(hashed)
        digests = b"".join([digest for _, _, digest in parts])
        leaves.records.append((bytes.fromhex(record_id), places[shape], digests))
    return leaves


def _read_texts(table: str, rows: list[tuple[Any, ...]]) -> tuple[tuple[str, ...], bytes]:
    """The keys and the digest of texts by key, as `make_rows` orders them; half of all rows."""
    keys = tuple([row[0] for row in rows])
    text = SEPARATOR.join([f"{PRESENT}{key}{NEXT}{value}" for key, value, _ in rows])
    return keys, _digest_of_text(text, len(rows), 2) or _read_any(table, rows)[1]


def _read_metrics(table: str, rows: list[tuple[Any, ...]]) -> tuple[tuple[str, ...], bytes]:
    """The same of metrics, a third of all rows."""
    keys = tuple([row[0] for row in rows])
    text = SEPARATOR.join(
        [
            f"{PRESENT}{key}{NEXT}{_number(value)}{NEXT}{at}{NEXT}{step}{NEXT}{nan:d}"
            for key, value, at, step, nan, _ in rows
        ]
    )
    return keys, _digest_of_text(text, len(rows), 5) or _read_any(table, rows)[1]


Reader = Callable[[str, list[Any]], tuple[tuple[str, ...], bytes]]
READ: dict[str, Reader] = {
    "params": _read_texts,
    "tags": _read_texts,
    "trace_tags": _read_texts,
    "trace_request_metadata": _read_texts,
    "metrics": _read_metrics,
    "latest_metrics": _read_metrics,
}


def _read_any(table: str, rows: list[Any]) -> tuple[tuple[str, ...], bytes]:
    """The keys and the digest of a record's rows, in whatever order they come."""
    place, get = KEPT[table].columns.index(KEPT[table].owner), _CELLS.get
    texts = [
        [
            "" if v is None else PRESENT + (v if type(v) is str else get(type(v), str)(v))
            for v in (*row[:place], *row[place + 1 :])
        ]
        for row in rows
    ]
    key = _KEY_PLACES[table]
    if len(texts) > 1:
        texts.sort(key=lambda row: (row[key], row))
    return tuple([row[key][1:] for row in texts]) if table in NAMED else (), digest_of(texts)


_KEY_PLACES = {
    table: kept.cells.index(kept.keys[0]) if kept.keys else 0 for table, kept in KEPT.items()
}


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()[:DIGEST_BYTES]
