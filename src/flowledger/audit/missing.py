"""Records that never came: each producer numbers its own from 1, so every hole shows."""

import base64
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from flowledger.audit.lacking import EPOCH
from flowledger.audit.shortfalls import Shortfall
from flowledger.config import Settings
from flowledger.errors import RecordError
from flowledger.records import decode
from flowledger.shipping.drain import REJECTED

__all__ = ["dropped", "missing", "rejected", "silent"]

MOST_EXAMPLES = 5
MOST_HOLES = 100_000
NUMBERED = (
    "SELECT producer_id, count(DISTINCT seq), max(seq) FROM {}"
    " WHERE producer_id <> '' AND seq > 0 GROUP BY producer_id"
)
NUMBERS = (
    "SELECT seq, received_ms, start_ms FROM llm_calls WHERE producer_id = :id AND seq > 0"
    " UNION ALL SELECT seq, received_ms, received_ms FROM llm_records WHERE producer_id = :id"
    " ORDER BY 1"
)
LAST_OF_A_PRODUCER = (
    "SELECT p.host, p.source, COALESCE("
    "(SELECT c.received_ms FROM llm_calls c WHERE c.producer_id = p.id"
    " ORDER BY c.seq DESC LIMIT 1), p.start_ms) FROM llm_producers p"
)


def missing(connection: sa.Connection, settled_ms: int, window: tuple[int, int]) -> Shortfall:
    """Numbers that are neither stored, nor told as dropped, nor rejected.

    Args:
        connection: to the ledger.
        settled_ms: what was stored after this may be followed by what comes before it.
        window: first and last millisecond; a hole belongs to when what follows it began.
    """
    told = _told(connection)
    sources, days, examples = Counter[str](), Counter[str](), list[str]()
    names = _names(connection)
    for producer in _suspects(connection, told):
        known = told.get(producer, set())
        for first, last, received_ms, start_ms in _holes(connection, producer):
            if received_ms > settled_ms or not window[0] <= start_ms < window[1]:
                continue
            lost = [n for n in range(first, min(last, first + MOST_HOLES) + 1) if n not in known]
            if not lost:
                continue
            sources[names.get(producer, "an unknown program")] += len(lost)
            days[_day(start_ms)] += len(lost)
            if len(examples) < MOST_EXAMPLES:
                span = f"{lost[0]}" if len(lost) == 1 else f"{lost[0]}-{lost[-1]}"
                examples.append(f"producer {producer}, numbers {span}")
    return Shortfall(
        kind="missing_records",
        what="records never arrived",
        count=sources.total(),
        by_source=dict(sources.most_common()),
        by_day=dict(sorted(days.items())),
        examples=examples,
    )


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


def _suspects(connection: sa.Connection, told: dict[str, set[int]]) -> list[str]:
    """Producers of whom fewer numbers are accounted for than they have given."""
    counts, last = Counter[str](), dict[str, int]()
    for table in ("llm_calls", "llm_records"):
        for producer, count, most in connection.exec_driver_sql(NUMBERED.format(table)):
            counts[producer] += int(count)
            last[producer] = max(last.get(producer, 0), int(most))
    return sorted(producer for producer, most in last.items() if counts[producer] < most)


def _holes(connection: sa.Connection, producer: str) -> Iterator[tuple[int, int, int, int]]:
    """First and last number of each hole, and when what follows it was stored and began."""
    expected = 1
    for seq, received_ms, start_ms in connection.execute(sa.text(NUMBERS), {"id": producer}):
        if seq > expected:
            yield expected, seq - 1, received_ms, start_ms
        expected = max(expected, seq + 1)


def _told(connection: sa.Connection) -> dict[str, set[int]]:
    """Numbers that were told as dropped or rejected."""
    told: dict[str, set[int]] = {}
    for producer, first, last in connection.exec_driver_sql(
        "SELECT producer_id, first_seq, last_seq FROM llm_gaps"
    ):
        told.setdefault(producer, set()).update(range(first, min(last, first + MOST_HOLES) + 1))
    for producer, seq in connection.exec_driver_sql("SELECT producer_id, seq FROM llm_rejected"):
        told.setdefault(producer, set()).add(seq)
    return told


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
