"""The benchmarks run and print their table; no timing decides a test."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.table import HEADINGS, Row, at_least, at_most, render, times_better

ROOT = Path(__file__).resolve().parent.parent


def test_a_subject_prints_its_rows_and_writes_them_as_json(tmp_path: Path) -> None:
    """`python -m bench import --quick --json FILE` ends with one table and the same as JSON."""
    file = tmp_path / "rows.json"

    run = subprocess.run(
        [sys.executable, "-m", "bench", "import", "--quick", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    machine, table = run.stdout.strip().split("\n\n")
    assert "cores of" in machine
    assert table.splitlines()[0].split() == list(HEADINGS)
    assert "import: flowledger over bare Python" in table
    written = msgspec.json.decode(file.read_bytes())
    assert written["rows"][0]["unit"] == "ms"
    assert written["machine"]["cores"] >= 1


def test_an_unknown_subject_is_named_in_the_error() -> None:
    """A wrong name ends with exit code 2 and the names there are."""
    run = subprocess.run(
        [sys.executable, "-m", "bench", "speed"], cwd=ROOT, capture_output=True, text=True
    )

    assert run.returncode == 2
    assert "there is no speed; there are overhead, wrap, store" in run.stderr


@pytest.mark.parametrize(
    ("more_is_better", "ratio"), [(False, 4.0), (True, 0.25)], ids=["time", "rate"]
)
def test_a_ratio_says_how_many_times_better_ours_is(more_is_better: bool, ratio: float) -> None:
    """A quarter of the peer's time is four times better, a quarter of its rate is not."""
    row = Row(
        subject="s",
        what="w",
        value=5,
        unit="us",
        peer="p",
        peer_value=20,
        more_is_better=more_is_better,
    )

    assert row.ratio == ratio


def test_a_goal_is_reached_at_its_limit() -> None:
    """Goals on the value and on the ratio, upwards and downwards."""
    row = Row(subject="s", what="w", value=5, unit="us", peer="p", peer_value=20)
    goals = [at_most(5), at_most(4.9), at_least(5), at_least(5.1), times_better(4), times_better(5)]

    reached = [msgspec.structs.replace(row, goal=goal).reached for goal in goals]

    assert reached == [True, False, True, False, True, False]


def test_a_row_without_peer_and_goal_leaves_its_cells_empty() -> None:
    """The table holds what was measured and nothing made up."""
    row = Row(subject="memory", what="before", value=23.04, unit="MB")

    assert render([row]).splitlines()[-1] == "memory: before  23 MB"
