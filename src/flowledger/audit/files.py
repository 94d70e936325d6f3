"""Files of records that are to go: artifacts, rejected records, and what waits in journals."""

import base64
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec

from flowledger import logs
from flowledger.errors import RecordError
from flowledger.journal import frames, segment_paths
from flowledger.records import Record, decode
from flowledger.shipping.drain import REJECTED

__all__ = ["ArtifactFiles", "of_user", "remove_rejected", "waiting"]

SHOWN_ROOT = 200


class ArtifactFiles:
    """Deletes the artifacts of runs and traces, wherever they are.

    `deleted` counts folders; `unreached` says where they could not be reached.
    """

    def __init__(self) -> None:
        self.deleted = 0
        self.unreached: dict[str, str] = {}
        self._there: dict[str, set[str]] = {}

    def delete(self, folders: Sequence[str]) -> None:
        """Delete folders, given as MLflow names them; those that are not there are passed over."""
        for folder in folders:
            record_folder = folder.removesuffix("/artifacts")
            root, _, name = record_folder.rpartition("/")
            try:
                self._delete(root, name)
            except Exception as exc:  # noqa: BLE001 - every kind of store has errors of its own
                self.unreached[root] = f"{type(exc).__name__}: {exc}"[:SHOWN_ROOT]

    def _delete(self, root: str, name: str) -> None:
        if root in self.unreached or not name:
            return
        path = _local(root)
        if path is not None:
            folder = path / name
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


def of_user(user_id: str) -> Callable[[Record], bool]:
    """Whether a record is of that user."""

    def is_theirs(record: Record) -> bool:
        actor = getattr(record, "actor", None)
        return actor is not None and actor.user_id == user_id

    return is_theirs


def remove_rejected(folder: Path, unwanted: Callable[[Record], bool]) -> int:
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


def waiting(folder: Path, wanted: Callable[[Record], bool]) -> int:
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
            found += piece.payload is not None and _is_wanted(piece.payload, wanted)
    return found


def _is_wanted(payload: bytes, wanted: Callable[[Record], bool]) -> bool:
    try:
        return wanted(decode(payload))
    except RecordError:
        return False


def _is_unwanted(line: bytes, unwanted: Callable[[Record], bool]) -> bool:
    try:
        payload = base64.b64decode(msgspec.json.decode(line)["record"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        logs.warn("erasure", "a rejected record cannot be read and stays")
        return False
    return _is_wanted(payload, unwanted)


def _local(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(uri) if not parts.scheme else None
