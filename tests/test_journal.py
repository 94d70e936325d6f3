"""The journal: what was appended is read back, whatever happens to the file."""

import os
import random
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowledger.journal import (
    Segment,
    Writer,
    acknowledged_offset,
    folder_bytes,
    frames,
    segment_paths,
)
from flowledger.journal.frames import HEADER_SIZE, Drops
from flowledger.records import Gap, Producer, decode, encode

PRODUCER = encode(Producer(id="p" * 32, producer="p" * 32, host="here", pid=1))
payloads = st.lists(st.binary(max_size=200), max_size=20)


def writer(folder: Path, **options: object) -> Writer:
    settings = {"producer_id": "p" * 32, "producer": PRODUCER, "max_bytes": 1 << 30, **options}
    return Writer(folder, **settings)  # type: ignore[arg-type]


def kept(journal: Writer, seq: int, payload: bytes) -> bool:
    """Append a record; whether there was room for it."""
    dropped = journal.dropped
    journal.append(seq, payload)
    return journal.dropped == dropped


def read_all(folder: Path) -> list[bytes | None]:
    found: list[bytes | None] = []
    for path in segment_paths(folder):
        with Segment(path) as segment:
            while pieces := segment.read().pieces:
                found += [piece.payload for piece in pieces]
                segment.acknowledge(segment.acknowledged + pieces[-1].end)
    return found


@given(payloads)
def test_frames_are_read_as_they_were_written(given_payloads: list[bytes]) -> None:
    data = b"".join(map(frames.frame, given_payloads))
    pieces, length = frames.split(data, final=False)
    assert given_payloads == [piece.payload for piece in pieces]
    assert len(data) == length


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=20), st.data())
def test_a_torn_tail_waits_for_its_writer_and_is_cut_when_there_is_none(
    given_payloads: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(map(frames.frame, given_payloads))
    last = len(frames.frame(given_payloads[-1]))
    torn = whole[: len(whole) - data.draw(st.integers(1, last - 1))]
    pieces, length = frames.split(torn, final=False)
    assert given_payloads[:-1] == [piece.payload for piece in pieces]
    assert len(whole) - last == length
    final_pieces, final_length = frames.split(torn, final=True)
    assert [*given_payloads[:-1], None] == [piece.payload for piece in final_pieces]
    assert len(torn) == final_length


@given(st.lists(st.binary(min_size=20, max_size=200), min_size=3, max_size=20), st.data())
def test_damage_costs_no_more_than_the_frame_it_hit(
    given_payloads: list[bytes], data: st.DataObject
) -> None:
    whole = bytearray(b"".join(map(frames.frame, given_payloads)))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    pieces, _ = frames.split(bytes(whole), final=True)
    ends = [sum(len(frames.frame(p)) for p in given_payloads[: i + 1]) for i in range(20)]
    hit = next(i for i, end in enumerate(ends) if place < end)
    expected = [*given_payloads[:hit], *given_payloads[hit + 1 :]]
    assert expected == [piece.payload for piece in pieces if piece.payload is not None]
    assert any(piece.payload is None for piece in pieces)


def test_damage_is_told_apart_from_a_write_under_way_by_a_whole_frame_after_it() -> None:
    damaged = bytearray(frames.frame(b"one") + frames.frame(b"two"))
    damaged[2] = 0xFF  # the first length now reaches far beyond the end
    pieces, _ = frames.split(bytes(damaged), final=False)
    assert [piece.payload for piece in pieces] == [None, b"two"]


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 2**63))
def test_the_slots_of_a_header_read_as_they_were_written(one: int, two: int, three: int) -> None:
    head = bytearray(frames.header(PRODUCER))
    for slot, offset in (
        frames.drops_slot(Drops(one, two, three)),
        frames.acknowledged_slot(two),
    ):
        head[offset : offset + len(slot)] = slot
    assert Drops(one, two, three) == frames.read_drops(bytes(head))
    assert two == frames.read_acknowledged(bytes(head))
    assert frames.read_producer(bytes(head)) == PRODUCER


def test_records_are_read_back_in_the_order_they_were_appended(tmp_path: Path) -> None:
    journal = writer(tmp_path)
    written = [os.urandom(random.randrange(3000)) for _ in range(500)]
    assert all(kept(journal, seq, payload) for seq, payload in enumerate(written, 1))
    journal.close()
    assert written == read_all(tmp_path)


def test_a_segment_is_finished_only_once_its_writer_let_go(tmp_path: Path) -> None:
    journal = writer(tmp_path)
    journal.append(1, b"one")
    [path] = segment_paths(tmp_path)
    with Segment(path) as segment:
        assert not segment.finished()
        journal.close()
        assert segment.finished()


def test_a_full_segment_is_followed_by_another(tmp_path: Path) -> None:
    journal = writer(tmp_path, max_bytes=1 << 20)
    for seq in range(1, 200):
        assert kept(journal, seq, bytes(1000))
    assert len(list(segment_paths(tmp_path))) > 2
    assert len(read_all(tmp_path)) == 199
    journal.close()


def test_a_record_of_many_megabytes_goes_through(tmp_path: Path) -> None:
    journal = writer(tmp_path)
    large = os.urandom(20 << 20)
    assert kept(journal, 1, large)
    assert kept(journal, 2, b"next")
    assert [large, b"next"] == read_all(tmp_path)
    journal.close()


def test_what_does_not_fit_is_counted_with_its_numbers(tmp_path: Path) -> None:
    troubles: list[str] = []
    journal = writer(tmp_path, max_bytes=1 << 20, on_trouble=troubles.append)
    there = [seq for seq in range(1, 3000) if kept(journal, seq, bytes(1000))]
    assert 0 < len(there) < 2999
    assert 2999 - len(there) == journal.dropped
    assert folder_bytes(tmp_path) <= 1 << 20
    assert "journal_max_bytes" in troubles[0]
    *_, last = segment_paths(tmp_path)
    with Segment(last) as segment:
        gap = decode(segment.new_drops() or b"")
        assert isinstance(gap, Gap)
        assert (journal.dropped, there[-1] + 1, 2999) == (gap.count, gap.first_seq, gap.last_seq)
        segment.acknowledge(segment.acknowledged)
        assert segment.new_drops() is None
    journal.close()


def test_what_was_dropped_before_there_was_a_segment_is_told_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file where the folder should be")
    journal = writer(tmp_path / "journal")
    assert not kept(journal, 1, b"one")
    (tmp_path / "journal").unlink()
    while not kept(journal, 2, b"two"):
        pass
    [path] = segment_paths(tmp_path / "journal")
    with Segment(path) as segment:
        gap = decode(segment.new_drops() or b"")
    assert isinstance(gap, Gap)
    assert journal.dropped == gap.count
    assert gap.first_seq == 1
    journal.close()


def test_reading_goes_on_after_what_was_acknowledged(tmp_path: Path) -> None:
    journal = writer(tmp_path)
    journal.append(1, b"one")
    [path] = segment_paths(tmp_path)
    with Segment(path) as segment:
        segment.acknowledge(segment.read().end)
    journal.append(2, b"two")
    with Segment(path) as segment:
        assert [piece.payload for piece in segment.read().pieces] == [b"two"]
    journal.close()


def test_a_finished_segment_is_gone_once_removed(tmp_path: Path) -> None:
    journal = writer(tmp_path)
    journal.append(1, b"one")
    journal.close()
    [path] = segment_paths(tmp_path)
    assert acknowledged_offset(path) == HEADER_SIZE
    Segment(path).remove()
    assert acknowledged_offset(path) is None


def test_a_journal_that_somebody_deleted_is_begun_again(tmp_path: Path) -> None:
    journal = writer(tmp_path)
    journal.append(1, b"one")
    for path in segment_paths(tmp_path):
        path.unlink()
    journal.reopen_if_removed()
    journal.append(2, b"two")
    assert read_all(tmp_path) == [b"two"]
    journal.close()


def test_the_journal_is_for_its_owner_alone(tmp_path: Path) -> None:
    journal = writer(tmp_path / "journal")
    journal.append(1, b"secret")
    [path] = segment_paths(tmp_path / "journal")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    journal.close()


@pytest.mark.parametrize("fsync", [False, True])
def test_both_durabilities_keep_a_record(tmp_path: Path, fsync: bool) -> None:
    journal = writer(tmp_path, fsync=fsync)
    assert kept(journal, 1, b"one")
    journal.close()
    assert read_all(tmp_path) == [b"one"]


def test_fsync_makes_the_names_of_segments_and_their_folder_survive_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    journal = writer(tmp_path / "new" / "journal", fsync=True, max_bytes=1 << 20)
    journal.append(1, b"one")
    assert [tmp_path / "new", tmp_path, tmp_path / "new" / "journal"] == synced
    for seq in range(2, 80):
        journal.append(seq, bytes(1000))
    assert len(list(segment_paths(tmp_path / "new" / "journal"))) == len(synced) - 2
    journal.close()


def test_a_record_that_interrupts_another_one_on_the_same_thread_is_kept_after_it(
    tmp_path: Path,
) -> None:
    journal = writer(tmp_path / "journal", on_trouble=lambda reason: None)

    seconds = 0.0005

    def interrupt(number: int, frame: object) -> None:
        journal.append(10_000 + number, b"interrupting")
        signal.setitimer(signal.ITIMER_REAL, seconds)  # never while one is under way

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        for seq in range(5000):
            assert kept(journal, seq, b"interrupted")
    finally:
        seconds = 0.0  # none is armed any more
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    journal.close()
    found = read_all(tmp_path / "journal")
    assert 5000 == found.count(b"interrupted")
    assert 0 < found.count(b"interrupting")
    assert len(found) == found.count(b"interrupted") + found.count(b"interrupting")


def test_a_forked_child_keeps_no_segment_locked_that_its_parent_let_go_of(tmp_path: Path) -> None:
    journal = writer(tmp_path)
    journal.append(1, b"one")
    journal.close()
    [path] = segment_paths(tmp_path)
    ours = Segment(path)
    assert ours.finished()
    may_leave, leave = os.pipe()
    is_there, arrive = os.pipe()
    child = os.fork()
    if not child:
        os.write(arrive, b"1")  # what is done after a fork is done
        os.close(leave)
        os.read(may_leave, 1)  # until the parent closes its end
        os._exit(0)
    os.read(is_there, 1)
    for end in (may_leave, is_there, arrive):
        os.close(end)
    ours.close()
    with Segment(path) as another:
        assert another.finished()
    os.close(leave)
    assert (child, 0) == os.waitpid(child, 0)
