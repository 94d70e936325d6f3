"""Calls by month on PostgreSQL: storing, moving into months, and purging one, beside one table."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from bench.calls import make_calls
from bench.places import postgresql
from bench.table import Row

__all__ = ["measure"]

CALLS, QUICK_CALLS = 200_000, 4_000
DAYS = 122.0
BATCH = 500


def measure(quick: bool) -> list[Row]:
    """Rows of the ledger alone, over four months, in two databases in turn."""
    from flowledger.store.bulk import open_bulk
    from flowledger.store.connections import PATIENT
    from flowledger.store.partitions import partition, this_month
    from flowledger.store.writers import open_writer

    calls = QUICK_CALLS if quick else CALLS
    with postgresql() as places:
        one, months = places.new(), places.new()
        engine = open_writer(months, PATIENT).engine
        partition(engine)
        stored = _store(calls, [open_bulk(_destination(uri)) for uri in (one, months)])
        partition(engine)  # as if the calls had come month by month
        cut_off = int(this_month().plus(-2).first[:12], 16)
        row_by_row, dropped = _purge(one, cut_off), _purge(months, cut_off)
        engine.dispose()
        engine = open_writer(one, PATIENT).engine
        left = engine.connect().exec_driver_sql("SELECT count(*) FROM llm_calls").scalar()
        moving = _timed(partial(partition, engine))
        engine.dispose()
    what = f"{calls:,} calls over four months"
    return [
        Row(
            subject="months",
            what=f"{what}, stored a second by month",
            value=calls / stored[1],
            unit="/s",
            peer="one table",
            peer_value=calls / stored[0],
            more_is_better=True,
        ),
        Row(
            subject="months",
            what=f"{what}, purge of the oldest {dropped[0]:,}",
            value=dropped[1],
            unit="s",
            peer="one table",
            peer_value=row_by_row[1],
        ),
        Row(
            subject="months",
            what="calls moved into months a second",
            value=int(left or 0) / moving,
            unit="/s",
            more_is_better=True,
        ),
    ]


def _store(calls: int, sinks: list[Any]) -> list[float]:
    """Seconds that each takes for the same calls, a batch here and a batch there."""
    from flowledger.records import encode, fixed_id

    took, batch = [0.0 for _ in sinks], list[bytes]()
    for number, call in enumerate(make_calls(calls, days=DAYS)):
        own = fixed_id(str(number), call.start_ns)
        batch.append(encode(msgspec.structs.replace(call, id=own)))
        if len(batch) == BATCH:
            for place, sink in enumerate(sinks):
                took[place] += _timed(partial(sink.write, batch))
            batch = []
    for sink in sinks:
        sink.close()
    return took


def _purge(uri: str, cut_off_ms: int) -> tuple[int, float]:
    """How many calls were purged, and in how many seconds."""
    from flowledger.audit.erasure import purge
    from flowledger.audit.proof import verify

    started = time.perf_counter()
    done = purge(uri, cut_off_ms, by="bench", reason="bench", everything=True, vacuum=False)
    seconds = time.perf_counter() - started
    if not verify(uri).intact:
        raise ValueError("the chain does not hold after a purge")
    return done.calls, seconds


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _destination(uri: str) -> Any:
    from flowledger.config import Destination

    return Destination(tracking_uri=uri, artifact_root="/nowhere", store_as="ledger")
