"""The journal: an append-only file per process that keeps a call once it returned."""

from flowledger.journal.frames import MAX_PAYLOAD, Piece
from flowledger.journal.reader import Batch, Segment, segment_paths
from flowledger.journal.writer import Writer, folder_bytes

__all__ = ["MAX_PAYLOAD", "Batch", "Piece", "Segment", "Writer", "folder_bytes", "segment_paths"]
