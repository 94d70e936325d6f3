"""Files of records that are to go: artifacts, rejected records, and what waits in journals."""

import base64
import os
import shutil
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec

from flowledger import logs
from flowledger.errors import RecordError
from flowledger.journal import frames, segment_paths
from flowledger.records import Record, decode
from flowledger.shipping.drain import REJECTED

__all__ = [
    "ArtifactFiles",
    "Unwanted",
    "began_before",
    "of_user",
    "overwrite_shipped",
    "owners_of_rejected",
    "remove_rejected",
    "waiting",
]

SHOWN_ROOT = 200
ZEROS = 1 << 20


class ArtifactFiles:
    """Deletes the artifacts of runs and traces, wherever they are.

    `deleted` counts folders; `unreached` says where they could not be reached.
    """

    def __init__(self) -> None:
        self.deleted = 0
        self.unreached: dict[str, str] = {}
        self._there: dict[str, set[str]] = {}

    def delete(self, folders: Sequence[str], *, is_there: bool = False) -> None:
        """Delete folders, given as MLflow names them; those that are not there are passed over.

        Args:
            folders: of artifacts, each in a folder of its record.
            is_there: whether what they are in must be there: the archive may not be mounted here.
        """
        for folder in folders:
            record_folder = folder.removesuffix("/artifacts")
            root, _, name = record_folder.rpartition("/")
            with self.reaching(root):
                if root not in self.unreached and name:
                    self._delete(root, name, is_there)

    @contextmanager
    def reaching(self, root: str) -> Iterator[None]:
        """Note in `unreached` what is raised in the block."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - every kind of store has errors of its own
            self.unreached[root] = f"{type(exc).__name__}: {exc}"[:SHOWN_ROOT]

    def _delete(self, root: str, name: str, is_there: bool) -> None:
        path = _local(root)
        if path is not None:
            folder = path / name
            if is_there and not path.is_dir():
                raise FileNotFoundError("there is no such folder on this host")
            if folder.is_dir():
                shutil.rmtree(folder)
                self.deleted += 1
            return
        if name in self._names(root):
            self._repository(root).delete_artifacts(name)
            self.deleted += 1

    def _names(self, root: str) -> set[str]:
        """What is in a folder of a remote store, listed once: most calls have no artifacts."""
        if root not in self._there:
            found = self._repository(root).list_artifacts()
            self._there[root] = {one.path.rpartition("/")[2] for one in found}
        return self._there[root]

    def _repository(self, root: str) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from flowledger.store.uploads import repository_of

        return repository_of(root)


class Unwanted(NamedTuple):
    """What is to go: records, and bytes that are none, by when they were rejected."""

    record: Callable[[Record], bool]
    damaged: Callable[[bytes, datetime], bool]


def of_user(user_id: str, ids: Set[str] = frozenset()) -> Unwanted:
    """What is of that user: records that name them, or belong to calls and jobs of these ids."""

    def is_theirs(record: Record) -> bool:
        return _names(record, user_id) or not ids.isdisjoint(_around(record))

    return Unwanted(is_theirs, lambda raw, at: user_id.encode() in raw)


def began_before(before_ms: int) -> Unwanted:
    """What began before a time, Unix milliseconds."""
    before = datetime.fromtimestamp(before_ms / 1000, UTC)
    return Unwanted(lambda record: record.start_ns < before_ms * 10**6, lambda raw, at: at < before)


def owners_of_rejected(folder: Path, user_id: str) -> tuple[set[str], set[str]]:
    """Ids of rejected records that name a user, and those that others of them belong to."""
    named: set[str] = set()
    others: set[str] = set()
    for path in sorted((folder / REJECTED).glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            record = _decoded(_rejected(line)[0])
            if record is None:
                continue
            if _names(record, user_id):
                named.add(record.id)
            others |= _around(record)
    return named, others


def remove_rejected(folder: Path, unwanted: Unwanted) -> int:
    """Delete these records from what was rejected on this host; how many there were."""
    removed = 0
    for path in sorted((folder / REJECTED).glob("*.jsonl")):
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if not _is_unwanted(line, unwanted)]
        if len(kept) < len(lines):
            removed += len(lines) - len(kept)
            beside = path.with_suffix(".rewritten")
            beside.write_bytes(b"".join(kept))
            beside.replace(path)
    return removed


def waiting(folder: Path, wanted: Unwanted) -> int:
    """How many of these records wait in the journals of a folder."""
    found = 0
    for path in segment_paths(folder):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # shipped meanwhile
        start = max(frames.HEADER_SIZE, frames.read_acknowledged(data[: frames.HEADER_SIZE]))
        pieces, _ = frames.split(data[start:], final=False)
        for piece in pieces:
            record = None if piece.payload is None else _decoded(piece.payload)
            found += record is not None and wanted.record(record)
    return found


def overwrite_shipped(folder: Path) -> None:
    """Put zeros over what journals still hold though the store has it.

    A process appends to its journal for as long as it lives, and nobody reads before the offset up
    to which the store has everything.
    """
    for path in segment_paths(folder):
        with suppress(FileNotFoundError), path.open("r+b") as file:
            left = frames.read_acknowledged(file.read(frames.HEADER_SIZE)) - frames.HEADER_SIZE
            file.seek(frames.HEADER_SIZE)
            while left > 0:
                left -= file.write(bytes(min(left, ZEROS)))


def _names(record: Record, user_id: str) -> bool:
    actor = getattr(record, "actor", None)
    return actor is not None and actor.user_id == user_id


def _around(record: Record) -> set[str]:
    """The record itself, and the calls and jobs that it is a part of."""
    place = getattr(record, "place", None)
    found = {record.id, getattr(record, "run_id", None), getattr(record, "parent_id", None)}
    if place is not None:
        found |= {place.root_id, place.parent_id}
    return {one for one in found if one}


def _decoded(payload: bytes) -> Record | None:
    try:
        return decode(payload)
    except RecordError:
        return None


def _rejected(line: bytes) -> tuple[bytes, datetime]:
    """The bytes of a rejected record, and when that was; nothing of a line that is none."""
    try:
        found = _decode_line(line)
        return base64.b64decode(found.record), found.at
    except (msgspec.MsgspecError, ValueError):
        logs.warn("erasure", "a rejected record cannot be read: its bytes are looked through")
        return line, datetime.now(UTC)


def _is_unwanted(line: bytes, unwanted: Unwanted) -> bool:
    payload, at = _rejected(line)
    record = _decoded(payload)
    return unwanted.damaged(payload, at) if record is None else unwanted.record(record)


class _Line(msgspec.Struct):
    at: datetime
    record: str


_decode_line = msgspec.json.Decoder(_Line).decode


def _local(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(uri) if not parts.scheme else None
