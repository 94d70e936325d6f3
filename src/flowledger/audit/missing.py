"""Records that never came: each producer numbers its own from 1, so every hole shows."""

import base64
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from flowledger.audit.lacking import EPOCH
from flowledger.audit.shortfalls import Shortfall
from flowledger.config import Settings
from flowledger.errors import RecordError
from flowledger.records import decode
from flowledger.shipping.drain import REJECTED

__all__ = ["Gap", "Hole", "dropped", "missing", "rejected", "silent", "unexplained"]

MOST_EXAMPLES = 5
AT_ONCE = 1_000
NUMBERED = (
    "SELECT producer_id, count(DISTINCT seq), max(seq) FROM {}"
    " WHERE producer_id <> '' AND seq > 0 GROUP BY producer_id"
)
# Numbers in both tables, which would hide as many that are in none.
IN_BOTH = (
    "SELECT r.producer_id, count(*) FROM llm_records r WHERE EXISTS (SELECT 1 FROM llm_calls c"
    " WHERE c.producer_id = r.producer_id AND c.seq = r.seq) GROUP BY r.producer_id"
)
HOLES = (
    "SELECT earlier + 1, seq - 1, received_ms, start_ms FROM (SELECT seq, received_ms, start_ms,"
    " LAG(seq, 1, CAST(0 AS BIGINT)) OVER (ORDER BY seq) AS earlier FROM ("
    "SELECT seq, received_ms, start_ms FROM llm_calls WHERE producer_id = :id AND seq > 0"
    " UNION ALL SELECT seq, received_ms, received_ms FROM llm_records WHERE producer_id = :id"
    " UNION ALL SELECT seq, seen_ms, seen_ms FROM llm_rejected"
    " WHERE producer_id = :id AND seq > 0 AND seq < :last) numbers) followed"
    " WHERE seq > earlier + 1 ORDER BY seq"
)
GAPS = (
    "SELECT first_seq, last_seq, dropped FROM llm_gaps"
    " WHERE producer_id = :id AND last_seq >= first_seq AND dropped > 0 ORDER BY first_seq"
)
LAST_OF_A_PRODUCER = (
    "SELECT p.host, p.source, COALESCE("
    "(SELECT c.received_ms FROM llm_calls c WHERE c.producer_id = p.id"
    " ORDER BY c.seq DESC LIMIT 1), p.start_ms) FROM llm_producers p"
)


class Hole(NamedTuple):
    """Numbers that are absent, first to last, and when what follows them was stored and began."""

    first: int
    last: int
    received_ms: int = 0
    start_ms: int = 0

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return self.last - self.first + 1


class Gap(NamedTuple):
    """What a producer reported: it dropped so many of the numbers from the first to the last."""

    first: int
    last: int
    dropped: int


def missing(connection: sa.Connection, settled_ms: int, window: tuple[int, int]) -> Shortfall:
    """Numbers that are neither stored, nor rejected, nor within what was reported as dropped.

    Args:
        connection: to the ledger.
        settled_ms: what was stored after this may be followed by what comes before it.
        window: first and last millisecond; a hole belongs to when what follows it began.
    """
    sources, days, examples = Counter[str](), Counter[str](), list[str]()
    names = _names(connection)
    for producer, last in _suspects(connection):
        holes = (
            hole for hole in _holes(connection, producer, last) if hole.received_ms <= settled_ms
        )
        for hole, lost in unexplained(holes, _gaps(connection, producer)):
            if not window[0] <= hole.start_ms < window[1]:
                continue
            sources[names.get(producer, "an unknown program")] += lost
            days[_day(hole.start_ms)] += lost
            if len(examples) < MOST_EXAMPLES:
                examples.append(f"producer {producer}, {_numbers(hole, lost)}")
    return Shortfall(
        kind="missing_records",
        what="records never arrived",
        count=sources.total(),
        by_source=dict(sources.most_common()),
        by_day=dict(sorted(days.items())),
        examples=examples,
    )


def unexplained(holes: Iterable[Hole], gaps: Iterable[Gap]) -> Iterator[tuple[Hole, int]]:
    """Return the holes that gaps do not explain, with how many numbers of each are missing.

    A gap explains at most as many absent numbers of its range as it dropped. Where gaps overlap,
    the one that ends first is used first, which explains as many numbers as can be. Ranges are
    never expanded: time and memory grow with how many there are, not with how long they are.

    Args:
        holes, gaps: of one producer, each in the order of their first numbers.
    """
    coming = iter(gaps)
    gap = next(coming, None)
    open_gaps: list[tuple[int, int]] = []  # by their last numbers: how many drops are left
    for hole in holes:
        at, lost = hole.first, 0
        while at <= hole.last:
            while gap is not None and gap.first <= at:
                heapq.heappush(open_gaps, (gap.last, gap.dropped))
                gap = next(coming, None)
            while open_gaps and open_gaps[0][0] < at:
                heapq.heappop(open_gaps)
            until = hole.last if gap is None else min(hole.last, gap.first - 1)
            if open_gaps:
                last, left = heapq.heappop(open_gaps)
                until = min(until, last, at + left - 1)
                if left > until - at + 1:
                    heapq.heappush(open_gaps, (last, left - (until - at + 1)))
            else:
                lost += until - at + 1
            at = until + 1
        if lost:
            yield hole, lost


def dropped(connection: sa.Connection) -> Shortfall:
    """Records that had no room in a journal, as their producers told."""
    names, sources, days = _names(connection), Counter[str](), Counter[str]()
    examples = []
    query = "SELECT producer_id, first_seq, last_seq, dropped, seen_ms, reason FROM llm_gaps"
    for producer, first, last, count, seen_ms, reason in connection.exec_driver_sql(query):
        sources[names.get(producer, "an unknown program")] += int(count)
        days[_day(seen_ms)] += int(count)
        examples.append(f"producer {producer}, {count} of {first}-{last}: {reason}")
    return Shortfall(
        kind="dropped_records",
        what="records were dropped",
        count=sources.total(),
        by_source=dict(sources.most_common()),
        by_day=dict(sorted(days.items())),
        examples=examples[:MOST_EXAMPLES],
    )


def rejected(connection: sa.Connection, settings: Settings) -> Shortfall:
    """Records that the store refused for good, and those that this host keeps aside."""
    names, sources, days = _names(connection), Counter[str](), Counter[str]()
    found: dict[tuple[str, int], str] = {}
    query = "SELECT producer_id, seq, reason, seen_ms FROM llm_rejected"
    for producer, seq, reason, seen_ms in connection.exec_driver_sql(query):
        found[producer, seq] = reason
        days[_day(seen_ms)] += 1
        sources[names.get(producer, "an unknown program")] += 1
    for place, (day, reason, key) in enumerate(_kept_aside(settings.journal_folder / REJECTED)):
        if key is None or key not in found:
            found[key or ("", -place)] = reason
            days[day] += 1
            sources["this host's journal"] += 1
    return Shortfall(
        kind="rejected_records",
        what="records were rejected",
        count=len(found),
        by_source=dict(sources.most_common()),
        by_day=dict(sorted(days.items())),
        examples=[
            f"producer {producer or 'unknown'}, number {max(seq, 0) or 'unknown'}: {reason}"
            for (producer, seq), reason in list(found.items())[:MOST_EXAMPLES]
        ],
    )


def silent(connection: sa.Connection, now_ms: int, after_seconds: int) -> Shortfall:
    """Programs, by host, that sent calls and send none any more."""
    last: dict[str, int] = {}
    for host, source, received_ms in connection.exec_driver_sql(LAST_OF_A_PRODUCER):
        name = f"{source or 'a program'} on {host or 'an unknown host'}"
        last[name] = max(last.get(name, 0), int(received_ms))
    quiet = {name: at for name, at in last.items() if at < now_ms - after_seconds * 1000}
    return Shortfall(
        kind="silent_sources",
        what="programs fell silent",
        count=len(quiet),
        by_source=dict.fromkeys(sorted(quiet), 1),
        by_day=dict(sorted(Counter(map(_day, quiet.values())).items())),
        examples=[f"{name}, last on {_day(at)}" for name, at in sorted(quiet.items())][
            :MOST_EXAMPLES
        ],
    )


def _suspects(connection: sa.Connection) -> list[tuple[str, int]]:
    """Producers of whom fewer numbers are stored than they have given, with the last of these."""
    counts, last = Counter[str](), dict[str, int]()
    for table in ("llm_calls", "llm_records"):
        for producer, count, most in connection.exec_driver_sql(NUMBERED.format(table)):
            counts[producer] += int(count)
            last[producer] = max(last.get(producer, 0), int(most))
    for producer, count in connection.exec_driver_sql(IN_BOTH):
        counts[producer] -= int(count)
    return sorted((producer, most) for producer, most in last.items() if counts[producer] < most)


def _holes(connection: sa.Connection, producer: str, last: int) -> Iterator[Hole]:
    """The numbers that are absent, found by the database."""
    given = {"id": producer, "last": last}
    options = {"yield_per": AT_ONCE}
    for row in connection.execute(sa.text(HOLES), given, execution_options=options):
        yield Hole(*row)


def _gaps(connection: sa.Connection, producer: str) -> Iterator[Gap]:
    given, options = {"id": producer}, {"yield_per": AT_ONCE}
    for row in connection.execute(sa.text(GAPS), given, execution_options=options):
        yield Gap(*row)


def _numbers(hole: Hole, lost: int) -> str:
    span = f"{hole.first}" if hole.size == 1 else f"{hole.first}-{hole.last}"
    return f"numbers {span}" if lost == hole.size else f"{lost:,} of numbers {span}"


def _names(connection: sa.Connection) -> dict[str, str]:
    query = "SELECT id, source, host FROM llm_producers"
    return {
        one: f"{source or 'a program'} on {host or 'an unknown host'}"
        for one, source, host in connection.exec_driver_sql(query)
    }


def _kept_aside(folder: Path) -> Iterator[tuple[str, str, tuple[str, int] | None]]:
    """Day, reason and number of each record in `rejected/`."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                yield path.stem, *_read(line)


def _read(line: bytes) -> tuple[str, tuple[str, int] | None]:
    try:
        told: dict[str, Any] = msgspec.json.decode(line)
        reason = str(told["reason"])
        record = decode(base64.b64decode(told["record"]))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, RecordError):
        return "it cannot be read", None
    return reason, (record.producer, record.seq)


def _day(unix_ms: int) -> str:
    return (EPOCH + timedelta(milliseconds=int(unix_ms))).date().isoformat()
