"""Numbers that never came: a gap explains what it dropped and no more, in bounded memory."""

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from flowledger.audit.missing import Gap, Hole, unexplained
from flowledger.audit.policy import Policy
from flowledger.records import Gap as GapRecord
from flowledger.records import Job, Record, new_id
from tests.calls import NOW_NS
from tests.test_evidence_check import found_in, numbered, short
from tests.test_evidence_proof import execute, store

STRICT = Policy(grace="0s", allow=[])
PRODUCER = "a" * 32


def gap(first: int, last: int, count: int, producer: str = PRODUCER) -> GapRecord:
    return GapRecord(
        id=new_id(), producer=producer, first_seq=first, last_seq=last, count=count, reason="full"
    )


def missing_of(uri: str, tmp_path: Path) -> list[tuple[int, list[str]]]:
    found = short(found_in(uri, tmp_path, STRICT), "missing_records").values()
    return [(one.count, one.examples) for one in found]


def test_a_gap_explains_no_more_numbers_than_it_dropped(database_uri: str, tmp_path: Path) -> None:
    records: list[Record] = [*numbered(1, 104), gap(2, 103, 2)]
    store(database_uri, records)
    expected = [(100, [f"producer {PRODUCER}, 100 of numbers 2-103"])]
    assert expected == missing_of(database_uri, tmp_path)


def test_a_gap_that_dropped_nothing_explains_nothing(database_uri: str, tmp_path: Path) -> None:
    store(database_uri, [*numbered(1, 4), gap(2, 3, 2)])
    execute(database_uri, "UPDATE llm_gaps SET dropped = 0")
    assert [(2, [f"producer {PRODUCER}, numbers 2-3"])] == missing_of(database_uri, tmp_path)


def test_a_hole_longer_than_any_list_is_counted_whole(database_uri: str, tmp_path: Path) -> None:
    store(database_uri, [*numbered(1, 3_000_000_002), gap(2, 11, 10)])
    span = "2,999,999,990 of numbers 2-3000000001"
    expected = [(2_999_999_990, [f"producer {PRODUCER}, {span}"])]
    assert expected == missing_of(database_uri, tmp_path)


def test_a_number_that_stands_in_both_tables_hides_no_hole(
    database_uri: str, tmp_path: Path
) -> None:
    job = Job(id=new_id(), producer=PRODUCER, seq=2, start_ns=NOW_NS)
    store(database_uri, [*numbered(1, 4), job])
    execute(database_uri, "UPDATE llm_records SET seq = 4")
    assert [(2, [f"producer {PRODUCER}, numbers 2-3"])] == missing_of(database_uri, tmp_path)


def test_many_long_gaps_take_little_memory(sqlite_uri: str, tmp_path: Path) -> None:
    gaps = [gap(n, n + 100_000, 100_000) for n in range(2, 40_000_002, 100_000)]
    store(sqlite_uri, [*numbered(1, 40_000_003), *gaps])
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from tests.test_evidence_gaps import missing_of\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "missing_of(sys.argv[1], Path(sys.argv[2]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code, sqlite_uri, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # kB; sets of these numbers take gigabytes


RANGES = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 25), st.integers(0, 12)), max_size=8)


def explained_at_most(absent: set[int], gaps: list[Gap]) -> int:
    """How many absent numbers can be explained at most, number by number: a matching."""
    places = [(gap.first, gap.last) for gap in gaps for _ in range(gap.dropped)]
    taken: dict[int, int] = {}

    def find(number: int, seen: set[int]) -> bool:
        for place, (first, last) in enumerate(places):
            if first <= number <= last and place not in seen:
                seen.add(place)
                if place not in taken or find(taken[place], seen):
                    taken[place] = number
                    return True
        return False

    return sum(find(number, set()) for number in sorted(absent))


@given(absent=st.sets(st.integers(1, 60)), ranges=RANGES)
def test_ranges_come_to_what_sets_of_single_numbers_come_to(
    absent: set[int], ranges: list[tuple[int, int, int]]
) -> None:
    gaps = [Gap(first, first + more, dropped) for first, more, dropped in sorted(ranges)]
    holes: list[Hole] = []
    for number in sorted(absent):
        if holes and holes[-1].last == number - 1:
            holes[-1] = holes[-1]._replace(last=number)
        else:
            holes.append(Hole(number, number))

    found = list(unexplained(holes, [one for one in gaps if one.dropped]))

    assert len(absent) - explained_at_most(absent, gaps) == sum(lost for _, lost in found)
    assert all(0 < lost <= hole.size and hole in holes for hole, lost in found)
