"""The journal: an append-only file per process that keeps a call once it returned."""

from flowledger.journal.frames import MAX_PAYLOAD, Piece
from flowledger.journal.locks import check_flock
from flowledger.journal.reader import (
    Batch,
    Segment,
    acknowledged_offset,
    rejected_records,
    segment_paths,
)
from flowledger.journal.writer import Writer, folder_bytes, sync_folder

__all__ = [
    "MAX_PAYLOAD",
    "Batch",
    "Piece",
    "Segment",
    "Writer",
    "acknowledged_offset",
    "check_flock",
    "folder_bytes",
    "rejected_records",
    "segment_paths",
    "sync_folder",
]
