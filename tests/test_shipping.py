"""Shipping: journals are emptied into a sink, and nothing is let go before the store has it."""

import base64
import json
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowledger import config
from flowledger.errors import StoreUnavailable
from flowledger.journal import (
    Segment,
    Writer,
    acknowledged_offset,
    rejected_records,
    segment_paths,
)
from flowledger.journal.frames import HEADER_SIZE, frame
from flowledger.records import Call, Producer, encode
from flowledger.shipping.collector import (
    Collector,
    collector_lock,
    collector_runs,
    destinations,
    note_destination,
)
from flowledger.shipping.drain import REJECTED, Drain
from flowledger.shipping.loop import Loop, read_status
from flowledger.store import Refusal
from flowledger.testing import MemorySink
from tests.calls import a_call

PRODUCER = encode(Producer(id="p" * 32, producer="p" * 32))


class Failing(MemorySink):
    """A sink over a store that is away so often before it takes anything."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.redelivered: list[bool] = []

    def write(self, payloads: Sequence[bytes], *, redelivered: bool = False) -> list[Refusal]:
        self.redelivered.append(redelivered)
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        return super().write(payloads)


def journal_of(
    folder: Path, *calls: Call, producer_id: str = "p" * 32, max_bytes: int = 1 << 30
) -> Writer:
    writer = Writer(folder, producer_id=producer_id, producer=PRODUCER, max_bytes=max_bytes)
    for call in calls:
        writer.append(call.seq, encode(call))
    return writer


def ids(sink: MemorySink) -> set[str]:
    return {record.id for record in sink.records.values() if isinstance(record, Call)}


def test_a_live_journal_is_acknowledged_and_a_finished_one_is_deleted(tmp_path: Path) -> None:
    calls = [a_call(), a_call()]
    writer = journal_of(tmp_path, *calls)
    sink = MemorySink()
    drain = Drain(tmp_path, sink)
    assert 2 == drain.step()
    assert {call.id for call in calls} == ids(sink)
    [path] = segment_paths(tmp_path)
    assert path.stat().st_size == acknowledged_offset(path)
    assert 1 == drain.live_writers
    writer.close()
    assert 0 == drain.step()
    assert [] == list(segment_paths(tmp_path))
    drain.close()


def test_nothing_is_acknowledged_before_the_store_has_it(tmp_path: Path) -> None:
    journal_of(tmp_path, a_call()).close()
    drain = Drain(tmp_path, Failing(1))
    with pytest.raises(StoreUnavailable):
        drain.step()
    drain.close()
    [path] = segment_paths(tmp_path)
    with Segment(path) as segment:
        assert 0 < segment.waiting()


def test_journals_of_many_processes_go_in_one_batch(tmp_path: Path) -> None:
    calls = [a_call() for _ in range(5)]
    for number, call in enumerate(calls):
        journal_of(tmp_path, call, producer_id=str(number) * 32).close()
    sink = Failing(0)
    drain = Drain(tmp_path, sink)
    assert 5 == drain.step()
    assert 2 == len(sink.redelivered)  # their calls, and that they are gone
    drain.close()


def test_a_shipper_leaves_the_live_journals_of_others_alone(tmp_path: Path) -> None:
    ours = journal_of(tmp_path, mine := a_call(), producer_id="a" * 32)
    theirs = journal_of(tmp_path, a_call(), producer_id="b" * 32)
    journal_of(tmp_path, orphan := a_call(), producer_id="c" * 32).close()
    sink = MemorySink()
    drain = Drain(tmp_path, sink, owned_by="a" * 32)
    drain.step()
    assert {mine.id, orphan.id} == ids(sink)
    for writer in (ours, theirs):
        writer.close()
    drain.close()


def test_a_refused_record_is_kept_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    writer = journal_of(tmp_path, first := a_call())
    writer.append(2, b"junk")
    writer.append(3, encode(last := a_call()))
    writer.close()
    sink = MemorySink()
    drain = Drain(tmp_path, sink)
    drain.step()
    drain.close()
    assert {first.id, last.id} == ids(sink)
    [kept] = (tmp_path / REJECTED).glob("*.jsonl")
    [line] = kept.read_text().splitlines()
    assert b"junk" == base64.b64decode(json.loads(line)["record"])
    assert "not a record" in json.loads(line)["reason"]


def test_a_damaged_stretch_is_kept_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    calls = [a_call() for _ in range(3)]
    journal_of(tmp_path, *calls).close()
    [path] = segment_paths(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(calls[1].id.encode())] ^= 0xFF
    path.write_bytes(data)
    sink = MemorySink()
    drain = Drain(tmp_path, sink)
    drain.step()
    drain.close()
    assert {calls[0].id, calls[2].id} == ids(sink)
    [kept] = (tmp_path / REJECTED).glob("*.jsonl")
    assert "damaged" in json.loads(kept.read_text())["reason"]


def test_a_loop_opens_the_store_again_after_it_failed_and_says_how_it_is(tmp_path: Path) -> None:
    journal_of(tmp_path, call := a_call()).close()
    sink = Failing(1)
    opened: list[Failing] = []

    def open_sink() -> Failing:
        opened.append(sink)
        return sink

    loop = Loop(tmp_path, open_sink)
    assert 0 < loop.turn()
    failed = read_status(tmp_path)
    assert failed is not None
    assert "away" == failed.error
    assert 0 == loop.turn()
    recovered = read_status(tmp_path)
    assert recovered is not None
    assert recovered.error is None
    loop.close()
    assert (2, {call.id}) == (len(opened), ids(sink))
    assert [True, True, False] == sink.redelivered  # the last says that the process is gone


def test_a_store_that_breaks_in_an_unknown_way_leaves_the_journal_alone(tmp_path: Path) -> None:
    journal_of(tmp_path, a_call()).close()

    def broken() -> MemorySink:
        raise RuntimeError("a driver's own")

    loop = Loop(tmp_path, broken)
    assert 0 < loop.turn()
    assert "RuntimeError: a driver's own" == loop.error
    assert 1 == len(list(segment_paths(tmp_path)))


def test_one_collector_holds_a_folder_until_the_folder_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with collector_lock(folder) as ours:
        assert ours()
        assert collector_runs(folder)
        with collector_lock(folder) as second:
            assert not second()
        (folder / "collector.lock").unlink()
        assert not ours()
    assert not collector_runs(folder)


def test_collecting_once_tells_why_the_store_did_not_take_it(home: Path) -> None:
    settings = config.load(tracking_uri="postgresql://nobody@127.0.0.1:9/none")
    journal_of(settings.journal_folder, a_call()).close()
    error = Collector(settings.journal_folder, settings.destination).run_once(timeout=0.1)
    assert error is not None
    assert "does not answer" in error
    assert 1 == len(list(segment_paths(settings.journal_folder)))


def test_every_destination_of_a_home_is_found_and_no_password_is_written(home: Path) -> None:
    ours = config.load(tracking_uri="postgresql://ana:secret@db/one")
    other = config.load(tracking_uri="postgresql://ana:secret@db/two")
    for settings in (ours, other):
        note_destination(settings)
        journal_of(settings.journal_folder, a_call()).close()
    found = {destination.tracking_uri for _, destination in destinations(ours)}
    assert {"postgresql://ana:secret@db/one", "postgresql://ana@db/two"} == found
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"secret" not in written


def test_what_tells_of_shipping_is_for_its_owner_alone(home: Path) -> None:
    before = os.umask(0o022)
    try:
        settings = config.load()
        note_destination(settings)
        loop = Loop(settings.journal_folder, MemorySink)
        loop.turn()
        loop.close()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in settings.journal_folder.iterdir()}
    assert {"destination.json": 0o600, "status.json": 0o600} == modes


def rejected_lines(folder: Path) -> list[dict[str, str]]:
    files = sorted((folder / REJECTED).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def damage(path: Path, call: Call) -> None:
    """Turn a byte of this call's frame round."""
    data = bytearray(path.read_bytes())
    data[data.index(call.id.encode())] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_frame_is_rejected_once_after_the_store_took_the_batch(tmp_path: Path) -> None:
    calls = [a_call() for _ in range(3)]
    journal_of(tmp_path, *calls).close()
    [path] = segment_paths(tmp_path)
    damage(path, calls[1])
    drain = Drain(tmp_path, Failing(5))
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            drain.step()
        assert [] == rejected_lines(tmp_path)
    drain.step()
    drain.close()
    assert ["damaged in the journal"] == [line["reason"] for line in rejected_lines(tmp_path)]


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As on a full disk, a write that goes beyond is short, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_journal_is_kept_until_what_was_rejected_of_it_is_written_whole(tmp_path: Path) -> None:
    junk = [bytes(1000), bytes(20_000)]
    writer = journal_of(tmp_path)
    writer.append(1, junk[0])
    writer.close()
    drain = Drain(tmp_path, MemorySink())
    drain.step()
    writer = journal_of(tmp_path, producer_id="q" * 32)
    writer.append(1, junk[1])
    writer.close()
    with files_no_larger_than(8192), pytest.raises(OSError, match="File too large"):
        drain.step()
    assert 1 == len(list(segment_paths(tmp_path)))
    drain.step()
    drain.close()
    assert junk == [base64.b64decode(line["record"]) for line in rejected_lines(tmp_path)]
    assert [] == list(segment_paths(tmp_path))


def test_a_segment_of_which_a_record_was_rejected_stays_until_its_process_has_ended(
    tmp_path: Path,
) -> None:
    writer = journal_of(tmp_path, max_bytes=1 << 20)
    writer.append(1, b"junk")
    while 1 == len(paths := list(segment_paths(tmp_path))):
        writer.append(2, encode(a_call()))
    drain = Drain(tmp_path, MemorySink())
    while drain.step():
        pass
    assert 1 == rejected_records(paths[0])
    assert HEADER_SIZE == paths[0].stat().st_size
    assert paths == list(segment_paths(tmp_path))
    writer.close()
    drain.step()
    drain.close()
    assert [] == list(segment_paths(tmp_path))


@pytest.mark.parametrize("left", [1, 2, 9, 10, 100, -1])
def test_the_torn_end_of_a_killed_process_is_no_rejected_record(tmp_path: Path, left: int) -> None:
    """As `kill -9` in the middle of `pwrite` leaves it: so many bytes of the last frame, or all
    but so many."""
    journal_of(tmp_path, whole := a_call(), torn := a_call()).close()
    [path] = segment_paths(tmp_path)
    size = len(frame(encode(torn)))
    os.truncate(path, path.stat().st_size - size + left % size)
    sink = MemorySink()
    drain = Drain(tmp_path, sink)
    while drain.step():
        pass
    drain.close()
    assert ({whole.id}, []) == (ids(sink), rejected_lines(tmp_path))
    assert [] == list(segment_paths(tmp_path))


def test_a_torn_frame_in_a_segment_that_another_followed_is_rejected(tmp_path: Path) -> None:
    journal_of(tmp_path, a_call(), a_call()).close()
    [path] = segment_paths(tmp_path)
    os.truncate(path, path.stat().st_size - 1)
    path.rename(path.with_name(path.name.replace("-000001", "-000000")))
    journal_of(tmp_path, a_call()).close()
    drain = Drain(tmp_path, MemorySink())
    while drain.step():
        pass
    drain.close()
    assert ["damaged in the journal"] == [line["reason"] for line in rejected_lines(tmp_path)]


@pytest.mark.parametrize("place", range(0, 12))
@pytest.mark.parametrize("bit", [0, 7])
def test_a_damaged_last_frame_is_not_taken_for_a_torn_one(
    tmp_path: Path, place: int, bit: int
) -> None:
    journal_of(tmp_path, a_call(), last := a_call()).close()
    [path] = segment_paths(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) - len(frame(encode(last))) + place] ^= 1 << bit
    path.write_bytes(data)
    drain = Drain(tmp_path, MemorySink())
    while drain.step():
        pass
    drain.close()
    assert ["damaged in the journal"] == [line["reason"] for line in rejected_lines(tmp_path)]
