"""Proving that the record is as it was stored: the whole chain and every row it covers.

The chain is walked in order, then the records in portions, each in a process of its own where there
are many. Links that correct, remove or erase stand for their records in the place of earlier ones.
"""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import msgspec

from flowledger.audit.comparing import Difference, compare_records, compare_rows
from flowledger.audit.sums import compare_sums
from flowledger.audit.texts import prepare
from flowledger.errors import NotFound, StoreMisconfigured, StoreUnavailable
from flowledger.store.chain import BEGINNING, Link
from flowledger.store.connections import PATIENT
from flowledger.store.leaves import Leaves, RowLeaf
from flowledger.store.rows import LEDGER
from flowledger.store.writers import Writer, answering, check_answers, open_writer

__all__ = ["Event", "Proof", "links", "open_proven", "verify"]

PORTION = 20_000
FEW = 40_000  # records that are not worth another process
MOST_PROCESSES = 8
MOST_NAMED = 1_000
CHAIN = "llm_chain"
SELECT_LINKS = "SELECT number, kind, at_ms, records, note, leaves, hash FROM llm_chain"
_decode = msgspec.msgpack.Decoder(Leaves).decode


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A change of what was stored before: a correction, removal, erasure or purge."""

    number: int
    kind: str
    at_ms: int
    records: int
    note: str


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` found.

    `differences` are those it names, the oldest record first, of `different` in all. `outside`
    counts calls from before there was a chain. `added_by_others` counts rows, by table, that MLflow
    lets people add. `archived_not_proven` counts traces archived by MLflow whose spans can no
    longer be read. `anchored` says whether the head that was asked for is in the chain.
    """

    intact: bool
    head: str
    links: int
    calls: int
    rows: int
    outside: int
    differences: list[Difference]
    different: int
    added_by_others: dict[str, int]
    archived_not_proven: int
    events: list[Event]
    anchored: bool | None
    seconds: float


class _Chain(NamedTuple):
    """The chain as it was read: what is wrong with it, and which link stands for what.

    `swept` are links, by number, that took whole ranges of calls out.
    """

    first: Link | None
    head: str
    sizes: list[tuple[int, int]]
    latest: dict[bytes, int]
    swept: list[tuple[int, Leaves]]
    rows: list[RowLeaf]
    events: list[Event]
    anchored: bool
    differences: list[Difference]


class _Portion(NamedTuple):
    """What the comparison of some links came to."""

    calls: list[bytes]
    differences: list[Difference]
    added: Counter[str]
    unproven: set[str]


def verify(
    tracking_uri: str,
    head: str | None = None,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Proof:
    """Compare everything that was ever stored with what is there.

    Args:
        tracking_uri: a `sqlite:///` or `postgresql://` database.
        head: a hash that was told before; without it a chain whose end was cut off looks whole.
        processes: how many may compare at once; as many as there are processors when left out.
        progress: is told how many records are done, and of how many.

    Raises:
        NotFound: there is no chain in that database.
        StoreMisconfigured: it is no database.
        StoreUnavailable: it does not answer.
    """
    started = time.monotonic()
    with answering(), open_proven(tracking_uri) as (writer, cursor):
        chain = _walk(cursor, head)
        cursor.execute("SELECT count(*) FROM llm_calls")
        there = int(cursor.fetchone()[0])
        cursor.connection.rollback()
        portions = _compare_all(tracking_uri, chain, processes, progress)
        differences = [*chain.differences, *(d for p in portions for d in p.differences)]
        single = compare_rows(writer, cursor, chain.rows)
        differences += single.differences
        unproven = single.unproven.union(*(portion.unproven for portion in portions))
        proven = [one for portion in portions for one in portion.calls]
        gone = sum(d.table == LEDGER and d.what == "removed" for d in differences)
        outside = max(0, there - len(proven) + gone)
        if outside:
            added_calls = _added(cursor, proven, chain.first)
            differences = list(dict.fromkeys([*differences, *added_calls]))
        if differences:
            differences = _without_later(writer, cursor, chain, differences)
        outside -= sum(d.table == LEDGER and d.what == "added" for d in differences)
        differences += compare_sums(tracking_uri, open_proven, processes)
    added: Counter[str] = sum((p.added for p in portions), Counter())
    anchored = None if head is None else chain.anchored
    differences.sort(key=lambda d: (d.table != CHAIN, d.id, d.table))
    return Proof(
        intact=not differences and anchored is not False,
        head=chain.head,
        links=len(chain.sizes),
        calls=len(proven),
        rows=len(chain.rows),
        outside=max(0, outside),
        differences=differences[:MOST_NAMED],
        different=len(differences),
        added_by_others=dict(added),
        archived_not_proven=len(unproven),
        events=chain.events,
        anchored=anchored,
        seconds=time.monotonic() - started,
    )


@contextmanager
def open_proven(tracking_uri: str) -> Iterator[tuple[Writer, Any]]:
    """A database with a chain, and a cursor in a transaction that sees one moment of it.

    Raises:
        NotFound: there is no chain in that database.
        StoreMisconfigured: it is no database.
    """
    if not tracking_uri.startswith(("sqlite", "postgresql")):
        raise StoreMisconfigured(
            "evidence is kept in a database: set FLOWLEDGER_TRACKING_URI to the sqlite:/// or "
            "postgresql:// database behind the server"
        )
    path = tracking_uri.partition(":///")[2]
    if tracking_uri.startswith("sqlite") and not os.path.isfile(path):
        raise NotFound(f"there is no database {path}: record a call first")
    writer = open_writer(tracking_uri, PATIENT)
    try:
        check_answers(writer.engine)
        with closing(writer.engine.raw_connection()) as connection:
            cursor: Any = connection.cursor()
            sqlite = writer.mark == "?"
            cursor.execute("BEGIN" if sqlite else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute(
                f"SELECT 1 FROM sqlite_master WHERE name = '{CHAIN}'"
                if sqlite
                else f"SELECT 1 FROM pg_tables WHERE tablename = '{CHAIN}'"
            )
            if cursor.fetchone() is None:
                raise NotFound(
                    "no evidence is kept in this database yet: it begins with the first call that "
                    "this version stores, or with `flowledger server`"
                )
            prepare(writer, cursor)
            yield writer, cursor
            connection.rollback()
    except writer.engine.dialect.dbapi.Error as exc:  # type: ignore[union-attr]
        reason = str(exc).partition("\n")[0]
        raise StoreUnavailable(f"the database does not answer: {reason}") from exc
    finally:
        writer.engine.dispose()


def links(cursor: Any, where: str = "") -> Iterator[Link]:
    """Links of the chain, in order."""
    cursor.execute(f"{SELECT_LINKS} {where} ORDER BY number")
    while some := cursor.fetchmany(20):
        for row in some:
            yield Link(*row)._replace(leaves=bytes(row[5]))


def _walk(cursor: Any, head: str | None) -> _Chain:
    """Recompute every hash, and find out which link has the last word on each record."""
    previous, number, first = BEGINNING, 0, None
    sizes: list[tuple[int, int]] = []
    latest: dict[bytes, int] = {}
    swept: list[tuple[int, Leaves]] = []
    rows: dict[tuple[str, str, bytes], tuple[int, RowLeaf]] = {}
    events: list[Event] = []
    differences: list[Difference] = []
    anchored, taken = False, False
    for link in links(cursor):
        first = first or link
        missing = range(number + 1, min(link.number, number + MOST_NAMED))
        differences += [Difference("removed", CHAIN, str(one)) for one in missing]
        if link.number == number + 1 and not link.follows(previous):
            differences.append(Difference("changed", CHAIN, str(link.number)))
        number, previous = link.number, link.hash
        anchored |= link.hash == head
        sizes.append((link.number, link.records))
        leaves = _leaves(link)
        if link.kind not in ("batch", "jobs", "beginning"):
            taken = True
            events.append(_event(link))
            latest.update((record_id, number) for record_id, _, _ in leaves.records)
            swept += [(number, Leaves(swept=leaves.swept))] * bool(leaves.swept)
        elif taken:  # what was removed may have come again
            again = (one for one, _, _ in leaves.records if one in latest or _swept(swept, one))
            latest.update((one, number) for one in again)
        rows.update(((leaf.table, leaf.owner, leaf.key), (number, leaf)) for leaf in leaves.rows)
    if not sizes:
        differences.append(Difference("removed", CHAIN, "1"))
    live = [leaf for at, leaf in rows.values() if at > latest.get(_bytes(leaf.owner), 0)]
    return _Chain(first, previous, sizes, latest, swept, live, events, anchored, differences)


def _bytes(owner: str) -> bytes:
    try:
        return bytes.fromhex(owner)
    except ValueError:
        return owner.encode()


def _leaves(link: Link) -> Leaves:
    """The leaves of a link; a link that was tampered with may hold anything."""
    try:
        leaves = _decode(link.leaves)
    except (msgspec.MsgspecError, ValueError):
        return Leaves()
    return leaves if all(shape < len(leaves.shapes) for _, shape, _ in leaves.records) else Leaves()


def _event(link: Link) -> Event:
    return Event(
        number=link.number,
        kind=link.kind,
        at_ms=link.at_ms,
        records=link.records,
        note=link.note,
    )


def _compare_all(
    uri: str, chain: _Chain, processes: int | None, progress: Callable[[int, int], None]
) -> list[_Portion]:
    portions: list[list[int]] = [[]]
    size = 0
    for number, records in chain.sizes:
        portions[-1].append(number)
        size += records
        if size >= PORTION:
            portions.append([])
            size = 0
    work = [portion for portion in portions if portion]
    total = sum(records for _, records in chain.sizes)
    if processes is None:
        processes = min(os.cpu_count() or 1, MOST_PROCESSES) if total > FEW else 1
    if processes == 1:
        return [_compare_links(uri, portion, chain.latest, chain.swept) for portion in work]
    done: list[_Portion] = []
    with ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("spawn"),
        initializer=_begin_process,
        initargs=(uri, chain.latest, chain.swept),
    ) as pool:
        for portion in pool.map(_compare_in_process, work):
            done.append(portion)
            progress(sum(len(one.calls) for one in done), total)
    return done


_given: tuple[str, dict[bytes, int], list[tuple[int, Leaves]]] = ("", {}, [])


def _begin_process(uri: str, latest: dict[bytes, int], swept: list[tuple[int, Leaves]]) -> None:
    global _given
    _given = (uri, latest, swept)


def _compare_in_process(numbers: list[int]) -> _Portion:
    uri, latest, swept = _given
    return _compare_links(uri, numbers, latest, swept)


def _compare_links(
    uri: str, numbers: list[int], latest: dict[bytes, int], swept: list[tuple[int, Leaves]]
) -> _Portion:
    """Compare the records that these links have the last word on."""
    with open_proven(uri) as (writer, cursor):
        expected: dict[str, dict[str, tuple[bytes, bytes]]] = {}
        for link in links(cursor, f"WHERE number BETWEEN {numbers[0]} AND {numbers[-1]}"):
            leaves = _leaves(link)
            for record_id, shape, digests in leaves.records:
                if latest.get(record_id, link.number) == link.number:
                    of_tables = leaves.digests(shape, digests)
                    gone = LEDGER in of_tables and _swept(swept, record_id, link.number)
                    expected[record_id.hex()] = {} if gone else of_tables
        found = compare_records(writer, cursor, expected)
    calls = [bytes.fromhex(one) for one, tables in expected.items() if LEDGER in tables]
    return _Portion(calls, found.differences, found.added, found.unproven)


def _swept(swept: list[tuple[int, Leaves]], record_id: bytes, since: int = 0) -> bool:
    """Whether a link after this number took the call out with others around it."""
    return any(number > since and leaves.sweep(record_id) for number, leaves in swept)


def _added(cursor: Any, proven: list[bytes], first: Link | None) -> Iterator[Difference]:
    """Calls that no link knows, and that were stored after the chain began."""
    known = set(proven)
    cursor.execute("SELECT id, received_ms FROM llm_calls")
    for call_id, received_ms in cursor:
        if _bytes(call_id) not in known and (
            first is None or not first.records or received_ms > first.at_ms
        ):
            yield Difference("added", LEDGER, call_id)


def _without_later(
    writer: Writer, cursor: Any, chain: _Chain, differences: list[Difference]
) -> list[Difference]:
    """The differences that no link tells of that was written while we compared."""
    later: dict[str, dict[str, tuple[bytes, bytes]]] = {}
    named = {one.id: _bytes(one.id) for one in differences if one.table != CHAIN}
    for link in links(cursor, f"WHERE number > {chain.sizes[-1][0] if chain.sizes else 0}"):
        leaves = _leaves(link)
        later.update((one, {}) for one, record_id in named.items() if leaves.sweep(record_id))
        for record_id, shape, digests in leaves.records:
            later[record_id.hex()] = leaves.digests(shape, digests)
        for leaf in leaves.rows:
            later.setdefault(leaf.owner, {})
    kept = [one for one in differences if one.id not in later]
    again = {d.id: later[d.id] for d in differences if later.get(d.id)}
    return [*kept, *compare_records(writer, cursor, again).differences]
