"""What waits in this host's journals, read without a lock and without disturbing who ships them."""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from flowledger.config import Destination, Settings, without_password
from flowledger.errors import JournalError
from flowledger.journal import frames, segment_paths
from flowledger.shipping.collector import DESTINATION_FILE, collector_runs
from flowledger.shipping.drain import REJECTED
from flowledger.shipping.loop import read_status

__all__ = ["JournalState", "look_at_journals"]

COUNTED_BYTES = 16 << 20
LAST_REASONS = 3
LINE_HEAD = 4096
_reason = re.compile(rb'"reason":("(?:[^"\\]|\\.)*")')


class JournalState(msgspec.Struct, frozen=True, kw_only=True):
    """The journals of one destination.

    `waiting_records` is a least number when `counted` is False: there was too much to read. `error`
    is what the last shipper said, at `said_at` (Unix seconds); None when its store takes calls.
    """

    folder: str
    place: str
    store_as: str = ""
    ours: bool = False
    collector_runs: bool = False
    waiting_bytes: int = 0
    waiting_records: int = 0
    counted: bool = True
    dropped: int = 0
    error: str | None = None
    said_at: float | None = None
    rejected: int = 0
    rejected_reasons: list[str] = msgspec.field(default_factory=list)
    rejected_folder: str | None = None
    unreadable: str | None = None


class _Segments(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the segments of a folder."""

    waiting_bytes: int = 0
    waiting_records: int = 0
    counted: bool = True
    dropped: int = 0


def look_at_journals(settings: Settings) -> list[JournalState]:
    """The journals of every destination this host ever sent calls to, ours first."""
    ours = settings.journal_folder
    root = Path(settings.home, "journal")
    others = sorted(path.parent for path in root.glob(f"*/{DESTINATION_FILE}"))
    return [
        _look_at(ours, settings.destination, ours=True),
        *(_look_at_other(folder) for folder in others if folder != ours),
    ]


def _look_at_other(folder: Path) -> JournalState:
    try:
        text = (folder / DESTINATION_FILE).read_bytes()
        return _look_at(folder, msgspec.json.decode(text, type=Destination), ours=False)
    except (OSError, msgspec.DecodeError) as exc:
        why = f"{folder / DESTINATION_FILE} cannot be read: {exc}"
        return JournalState(folder=str(folder), place="an unknown store", unreadable=why)


def _look_at(folder: Path, destination: Destination, *, ours: bool) -> JournalState:
    place = without_password(destination.tracking_uri)
    try:
        segments = _sum(folder)
        rejected, reasons = _rejected(folder / REJECTED)
        running = collector_runs(folder)
    except (OSError, JournalError) as exc:
        why = f"{folder} cannot be read: {exc}"
        return JournalState(folder=str(folder), place=place, ours=ours, unreadable=why)
    status = read_status(folder)
    return JournalState(
        folder=str(folder),
        place=place,
        store_as=destination.store_as,
        ours=ours,
        collector_runs=running,
        error=None if status is None else status.error,
        said_at=None if status is None else status.at,
        rejected=rejected,
        rejected_reasons=reasons,
        rejected_folder=str(folder / REJECTED) if rejected else None,
        **msgspec.structs.asdict(segments),
    )


def _sum(folder: Path) -> _Segments:
    total = _Segments()
    for path in segment_paths(folder):
        total = _added(total, path)
    return total


def _added(total: _Segments, path: Path) -> _Segments:
    """The sums with one more segment; of one that vanishes meanwhile everything is stored."""
    try:
        with path.open("rb") as file:
            head = file.read(frames.HEADER_SIZE)
            start = max(frames.HEADER_SIZE, frames.read_acknowledged(head))
            waiting = max(0, path.stat().st_size - start)
            file.seek(start)
            room = max(0, COUNTED_BYTES - total.waiting_bytes)
            pieces, _ = frames.split(file.read(min(waiting, room)), final=False)
    except FileNotFoundError:
        return total
    return _Segments(
        waiting_bytes=total.waiting_bytes + waiting,
        waiting_records=total.waiting_records + sum(p.payload is not None for p in pieces),
        counted=total.counted and waiting <= room,
        dropped=total.dropped + frames.read_drops(head).dropped,
    )


def _rejected(folder: Path) -> tuple[int, list[str]]:
    """How many records were rejected, and the last different reasons."""
    reasons: dict[str, None] = {}
    count = 0
    for path in sorted(folder.glob("*.jsonl")):
        for reason in _reasons(path):
            count += 1
            reasons.pop(reason, None)
            reasons[reason] = None  # the last ones stand last
    return count, list(reasons)[-LAST_REASONS:]


def _reasons(path: Path) -> Iterator[str]:
    """The reason on each line; a line holds a whole record and may be of many megabytes."""
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        start = 0
        while start < len(text):
            found = _reason.search(text[start : start + LINE_HEAD])
            yield str(msgspec.json.decode(found[1])) if found else "no reason can be read"
            end = text.find(b"\n", start)
            start = len(text) if end < 0 else end + 1
