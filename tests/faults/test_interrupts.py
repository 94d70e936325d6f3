"""Exceptions of signal handlers and other threads, at any instruction of recording."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from flowledger.journal import Segment, segment_paths
from flowledger.records import Call, decode

SECONDS = float(os.environ.get("STRESS_SECONDS", "30"))
ROUND_SECONDS = 10.0
HANG_SECONDS = 60.0


def test_nothing_that_returned_is_lost_and_no_exception_swallowed_wherever_it_comes(
    tmp_path: Path,
) -> None:
    end = time.monotonic() + SECONDS
    seed = 0
    while time.monotonic() < end:
        seed += 1
        home = tmp_path / str(seed)
        returned, counts = recorded_under_fire(home, min(SECONDS, ROUND_SECONDS), seed)
        assert counts["raised"] == counts["reached"]
        assert counts["alarms"] > 0
        assert len(returned) > 0
        assert set() == returned - ids_in_journals(home)
        shutil.rmtree(home)  # an hour of these would fill the disk


def recorded_under_fire(home: Path, seconds: float, seed: int) -> tuple[set[str], dict[str, int]]:
    """The ids of calls that returned, and what was raised, of a process that is killed then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.interrupted", str(seconds), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "FLOWLEDGER_HOME": str(home),
            "FLOWLEDGER_COLLECTOR": "off",
            "FLOWLEDGER_JOURNAL_MAX_BYTES": str(8 << 30),
        },
    )
    assert process.stdout is not None
    returned: set[str] = set()
    watchdog = threading.Timer(seconds + HANG_SECONDS, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            if line.startswith("{"):
                counts: dict[str, int] = json.loads(line)
                return returned, counts
            returned.add(line.strip())
    finally:
        watchdog.cancel()
        process.kill()
        process.stdout.close()
        process.wait()
    raise AssertionError("the application ended or hung before it could report")


def ids_in_journals(home: Path) -> set[str]:
    found: set[str] = set()
    for folder in {path.parent for path in home.rglob("*.journal")}:
        for path in segment_paths(folder):
            with Segment(path) as segment:
                while pieces := segment.read().pieces:
                    records = [decode(piece.payload) for piece in pieces if piece.payload]
                    found |= {record.id for record in records if isinstance(record, Call)}
                    segment.acknowledge(segment.acknowledged + pieces[-1].end)
    return found
