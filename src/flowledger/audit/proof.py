"""Proving that the record is as it was stored: the whole chain and every row it covers.

The chain is walked in order, then the records in portions, each in a process of its own where there
are many. Links that correct, remove or erase stand for their records in the place of earlier ones.
"""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import msgspec

from flowledger.audit.comparing import CHAIN, Difference, compare_records, compare_rows
from flowledger.audit.log_state import Event, LogState, decode_leaves, is_swept, owner_bytes
from flowledger.audit.sums import compare_sums
from flowledger.audit.texts import prepare
from flowledger.errors import NotFound, StoreMisconfigured, StoreUnavailable
from flowledger.store.chain import BEGINNING, EVENTS, FIRST, STORING, Link
from flowledger.store.connections import PATIENT
from flowledger.store.leaves import Leaves
from flowledger.store.rows import LEDGER
from flowledger.store.writers import Writer, answering, check_answers, open_writer

__all__ = ["Proof", "begin_snapshot", "links", "open_proven", "verify"]

PORTION = 20_000
FEW = 40_000  # records that are not worth another process
MOST_PROCESSES = 8
MOST_NAMED = 1_000
SELECT_LINKS = "SELECT number, kind, at_ms, records, note, leaves, hash FROM llm_chain"


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` found.

    `differences` are those it names, the oldest record first, of `different` in all. `outside`
    counts calls from before there was a chain. `added_by_others` counts rows, by table, that MLflow
    lets people add. `archived_not_proven` counts traces archived by MLflow whose spans can no
    longer be read. `anchored` says whether the head that was asked for is in the chain. `intact`
    also needs every event since that head to be allowed.
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


class _Portion(NamedTuple):
    """What the comparison of some links came to."""

    calls: int
    differences: list[Difference]
    added: Counter[str]
    unproven: set[str]


def verify(
    tracking_uri: str,
    head: str | None = None,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
    allow: Collection[str] = (),
) -> Proof:
    """Compare everything that was ever stored with what is there.

    Args:
        tracking_uri: a `sqlite:///` or `postgresql://` database.
        head: a hash that was told before; without it a chain whose end was cut off looks whole.
        processes: how many may compare at once; as many as there are processors when left out.
        progress: is told how many records are done, and of how many.
        allow: kinds of events that may follow the head; `FIRST` allows a log that was begun when
            calls were stored already.

    Raises:
        NotFound: there is no chain in that database.
        StoreMisconfigured: it is no database.
        StoreUnavailable: it does not answer.
    """
    started = time.monotonic()
    with answering(), open_proven(tracking_uri) as (writer, cursor):
        walk = _Walk(head)
        walk.read(cursor)
        found_head, sizes = walk.head, list(walk.sizes)
        cursor.connection.rollback()
        portions = _compare_all(tracking_uri, walk, processes, progress)
        compared = [d for portion in portions for d in portion.differences]
        calls = sum(portion.calls for portion in portions)
        # Everything else is compared at one later moment, by what the log states at that moment.
        begin_snapshot(writer, cursor)
        walk.read(cursor)
        compared = _compare_again(writer, cursor, walk.state, sizes, compared)
        rows = list(walk.state.rows())
        single = compare_rows(writer, cursor, rows, walk.state.outside)
        unproven = single.unproven.union(*(portion.unproven for portion in portions))
        compared += single.differences
        compared += _numbered_twice(cursor)
        gone = sum(d.table == LEDGER and d.what == "removed" for d in compared)
        added_calls, outside = _added(cursor, walk, calls - gone)
        if walk.state.outside and FIRST not in allow:
            walk.differences.append(Difference("begun anew", CHAIN, "1"))
        differences = list(dict.fromkeys([*walk.differences, *compared, *added_calls]))
        differences += compare_sums(tracking_uri, open_proven, processes)
    added: Counter[str] = sum((p.added for p in portions), Counter())
    anchored = None if head is None else walk.head_number is not None
    events = [one.judged(walk.head_number, frozenset(allow)) for one in walk.state.events]
    differences.sort(key=lambda d: (d.table != CHAIN, d.id, d.table))
    return Proof(
        intact=not differences and anchored is not False and all(one.allowed for one in events),
        head=found_head,
        links=len(sizes),
        calls=calls,
        rows=len(rows),
        outside=outside,
        differences=differences[:MOST_NAMED],
        different=len(differences),
        added_by_others=dict(added),
        archived_not_proven=len(unproven),
        events=events,
        anchored=anchored,
        seconds=time.monotonic() - started,
    )


class _Walk:
    """Reads the log in order: recomputes every hash, and takes what each entry states.

    `sizes` are the numbers of the entries and how many records each is about.
    """

    def __init__(self, head: str | None) -> None:
        self._wanted_head = head
        self._number = 0
        self.head = BEGINNING
        self.head_number: int | None = None
        self.sizes: list[tuple[int, int]] = []
        self.state = LogState()
        self.differences: list[Difference] = []

    def read(self, cursor: Any) -> None:
        """Read the entries that were not read yet."""
        for link in links(cursor, f"WHERE number > {self._number}"):
            missing = range(self._number + 1, min(link.number, self._number + MOST_NAMED))
            self.differences += [Difference("removed", CHAIN, str(one)) for one in missing]
            if link.number == self._number + 1 and not link.follows(self.head):
                self.differences.append(Difference("changed", CHAIN, str(link.number)))
            self._number, self.head = link.number, link.hash
            if link.hash == self._wanted_head:
                self.head_number = link.number
            self.sizes.append((link.number, link.records))
            self.differences += self.state.take(link, decode_leaves(link.leaves))
        if not self.sizes:
            self.differences.append(Difference("removed", CHAIN, "1"))


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
            begin_snapshot(writer, cursor)
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


def begin_snapshot(writer: Writer, cursor: Any) -> None:
    """Begin a transaction that sees one moment of the database."""
    sqlite = writer.mark == "?"
    cursor.execute("BEGIN" if sqlite else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def links(cursor: Any, where: str = "") -> Iterator[Link]:
    """Links of the chain, in order."""
    cursor.execute(f"{SELECT_LINKS} {where} ORDER BY number")
    while some := cursor.fetchmany(20):
        for row in some:
            yield Link(*row)._replace(leaves=bytes(row[5]))


def _compare_all(
    uri: str, walk: _Walk, processes: int | None, progress: Callable[[int, int], None]
) -> list[_Portion]:
    portions: list[list[int]] = [[]]
    size = 0
    for number, records in walk.sizes:
        portions[-1].append(number)
        size += records
        if size >= PORTION:
            portions.append([])
            size = 0
    work = [portion for portion in portions if portion]
    total = sum(records for _, records in walk.sizes)
    latest, swept = walk.state.latest, walk.state.swept
    if processes is None:
        processes = min(os.cpu_count() or 1, MOST_PROCESSES) if total > FEW else 1
    if processes == 1:
        return [_compare_links(uri, portion, latest, swept) for portion in work]
    done: list[_Portion] = []
    with ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("spawn"),
        initializer=_begin_process,
        initargs=(uri, latest, swept),
    ) as pool:
        for portion in pool.map(_compare_in_process, work):
            done.append(portion)
            progress(sum(one.calls for one in done), total)
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
    expected: dict[str, dict[str, tuple[bytes, bytes]]] = {}
    with open_proven(uri) as (writer, cursor):
        for link in links(cursor, f"WHERE number BETWEEN {numbers[0]} AND {numbers[-1]}"):
            for record_id, of_tables in _stated_by(link):
                if latest.get(record_id, link.number) == link.number:
                    gone = LEDGER in of_tables and is_swept(swept, record_id, link.number)
                    expected.setdefault(record_id.hex(), {} if gone else of_tables)
        found = compare_records(writer, cursor, expected)
    calls = sum(LEDGER in of_tables for of_tables in expected.values())
    return _Portion(calls, found.differences, found.added, found.unproven)


def _stated_by(link: Link) -> Iterator[tuple[bytes, dict[str, tuple[bytes, bytes]]]]:
    """What an entry says of each of its records, where its kind may say anything."""
    leaves = decode_leaves(link.leaves)
    if leaves is not None and link.kind in (*STORING, *EVENTS, FIRST):
        for record_id, shape, digests in leaves.records:
            yield record_id, leaves.digests(shape, digests)


def _compare_again(
    writer: Writer,
    cursor: Any,
    state: LogState,
    sizes: list[tuple[int, int]],
    differences: list[Difference],
) -> list[Difference]:
    """Judge differences anew whose records got another last word while they were compared."""
    if not differences:
        return []
    later: dict[str, dict[str, tuple[bytes, bytes]]] = {}
    for link in links(cursor, f"WHERE number > {sizes[-1][0] if sizes else 0}"):
        for record_id, of_tables in _stated_by(link):
            if state.latest.get(record_id) == link.number:
                later[record_id.hex()] = of_tables
    for one in differences:
        if not state.has(owner_bytes(one.id)):
            later.setdefault(one.id, {})
    again = {one.id: later[one.id] for one in differences if one.id in later}
    kept = [one for one in differences if one.id not in again]
    return [*kept, *compare_records(writer, cursor, again).differences]


def _added(cursor: Any, walk: _Walk, expected: int) -> tuple[list[Difference], int]:
    """Calls that the log does not have: those that were added, and how many are older than it."""
    state, first = walk.state, walk.state.first
    differences, outside = list[Difference](), 0
    cursor.execute("SELECT count(*) FROM llm_calls")
    if int(cursor.fetchone()[0]) != expected:
        cursor.execute("SELECT id, received_ms FROM llm_calls")
        for call_id, received_ms in cursor:
            if state.has(owner_bytes(call_id)):
                continue
            if first is None or not first.records or received_ms > first.at_ms:
                differences.append(Difference("added", LEDGER, call_id))
            else:
                outside += 1
    began_with = state.outside.get(LEDGER, 0)
    if outside > began_with:
        about = f"{outside - began_with} more than when the log began"
        differences.append(Difference("added", LEDGER, about))
    elif outside < began_with - state.adopted:
        about = f"{began_with - state.adopted - outside} from before the log began"
        differences.append(Difference("removed", LEDGER, about))
    return differences, outside


def _numbered_twice(cursor: Any) -> list[Difference]:
    """Numbers of a process that a call and another record have: one would hide an absent one."""
    cursor.execute(
        "SELECT r.producer_id, r.seq FROM llm_records r WHERE EXISTS (SELECT 1 FROM llm_calls c"
        f" WHERE c.producer_id = r.producer_id AND c.seq = r.seq) LIMIT {MOST_NAMED}"
    )
    return [Difference("numbered twice", LEDGER, f"{one} {seq}") for one, seq in cursor]
