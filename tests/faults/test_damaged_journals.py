"""Damage to a journal costs the records it hit and no other, and what is left of them is kept."""

import base64
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from flowledger.journal.frames import HEADER_SIZE, split
from flowledger.records import decode
from tests.faults.processes import Host, Ledger, eventually


def flipped(data: bytearray, chance: Random) -> bytearray:
    """A few bits are the other way round."""
    for _ in range(chance.randint(1, 5)):
        data[chance.randrange(HEADER_SIZE, len(data))] ^= 1 << chance.randrange(8)
    return data


def flipped_in_header(data: bytearray, chance: Random) -> bytearray:
    """Many bits of the header are the other way round."""
    for _ in range(40):
        data[chance.randrange(HEADER_SIZE)] ^= 1 << chance.randrange(8)
    return data


def zeroed(data: bytearray, chance: Random) -> bytearray:
    """A page was never written."""
    page = chance.randrange(1, len(data) >> 12) << 12
    data[page : page + 4096] = bytes(4096)
    return data


def overwritten(data: bytearray, chance: Random) -> bytearray:
    """A stretch holds something else."""
    start, length = chance.randrange(HEADER_SIZE, len(data) - 9000), chance.randrange(9000)
    data[start : start + length] = chance.randbytes(length)
    return data


def truncated(data: bytearray, chance: Random) -> bytearray:
    """The end is missing."""
    return data[: chance.randrange(HEADER_SIZE, len(data))]


def truncated_in_header(data: bytearray, chance: Random) -> bytearray:
    """Hardly the beginning is there."""
    return data[: chance.randrange(HEADER_SIZE)]


def shortened(data: bytearray, chance: Random) -> bytearray:
    """A stretch in the middle is missing."""
    start, length = chance.randrange(HEADER_SIZE, len(data) - 9000), chance.randrange(1, 9000)
    del data[start : start + length]
    return data


def continued(data: bytearray, chance: Random) -> bytearray:
    """Something else follows."""
    return data + chance.randbytes(chance.randrange(1, 9000))


SEEDS = [int(seed) for seed in os.environ.get("SEEDS", "1").split()]
DAMAGES: list[Callable[[bytearray, Random], bytearray]] = [
    flipped,
    flipped_in_header,
    zeroed,
    overwritten,
    truncated,
    truncated_in_header,
    shortened,
    continued,
]


class Damaged:
    """A segment before and after something happened to it."""

    def __init__(self, path: Path, damage: Callable[[bytearray, Random], bytearray], seed: int):
        before = path.read_bytes()
        after = damage(bytearray(before), Random(seed))
        with path.open("r+b") as file:
            file.write(after)
            file.truncate()
        frames = _frames(before)
        self.intact = {decode(payload).id for payload, frame in frames if frame in after}
        whole = sum(len(frame) for _, frame in frames if frame in after)
        self.rest = max(0, len(after) - HEADER_SIZE - whole)


def _frames(segment: bytes) -> list[tuple[bytes, bytes]]:
    """The payloads of a segment, each with its whole frame."""
    body = segment[HEADER_SIZE:]
    pieces, length = split(body, final=True)
    assert len(body) == length
    starts = [0, *(piece.end for piece in pieces)]
    return [
        (p.payload, body[start : p.end])
        for start, p in zip(starts, pieces, strict=False)
        if p.payload
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_undamaged_record_is_stored_and_what_is_left_of_the_others_is_rejected(
    host: Host, sqlite_uri: str, seed: int
) -> None:
    writer = host.start(sqlite_uri, collector="off", journal_max_bytes=2 << 20)
    writer.ask("calls", count=380, size=2000)
    assert 0 == writer.ask("dropped")
    writer.leave()
    segments = host.segments()
    assert len(segments) > len(DAMAGES)
    damaged = [
        Damaged(path, DAMAGES[number % len(DAMAGES)], seed + number)
        for number, path in enumerate(segments[:-1])
    ]
    # A last segment that is cut off looks like that of a killed process.
    damaged.append(Damaged(segments[-1], flipped, seed))
    host.collect_once(sqlite_uri)
    ledger = Ledger(sqlite_uri)
    stored = {call_id for (call_id,) in ledger.rows("SELECT id FROM llm_calls")}
    assert set.union(*(segment.intact for segment in damaged)) == stored
    assert {"damaged in the journal"} == {line["reason"] for line in host.rejected()}
    assert sum(segment.rest for segment in damaged) == rejected_bytes(host)
    assert [] == host.segments()
    host.start(sqlite_uri).ask("calls", count=10)
    eventually(len(stored) + 10, ledger.count)


def test_a_journal_that_is_damaged_while_it_grows_loses_no_later_record(
    host: Host, sqlite_uri: str
) -> None:
    writer = host.start(sqlite_uri, collector="off")
    writer.ask("calls", count=50, size=1000)
    [path] = host.segments()
    damaged = Damaged(path, overwritten, 3)
    writer.ask("calls", count=50, size=1000)
    host.collect_once(sqlite_uri)
    ledger = Ledger(sqlite_uri)
    assert len(damaged.intact) + 50 == ledger.count()
    assert damaged.rest == rejected_bytes(host)
    assert 0 == host.waiting()
    writer.ask("calls", count=50)
    host.collect_once(sqlite_uri)
    assert len(damaged.intact) + 100 == ledger.count()


def rejected_bytes(host: Host) -> int:
    """How many bytes were set aside."""
    return sum(len(base64.b64decode(line["record"])) for line in host.rejected())
