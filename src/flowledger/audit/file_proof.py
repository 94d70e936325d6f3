"""Proving that uploaded files are as they were sent: their digests in the chain, read again."""

import base64
import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from flowledger.audit.comparing import Difference
from flowledger.audit.proof import links, open_proven
from flowledger.errors import RecordError
from flowledger.records import Artifact, decode
from flowledger.store.artifacts import FileLeaf, FilesNote, file_leaf
from flowledger.store.leaves import Leaves
from flowledger.store.writers import Writer, answering

__all__ = ["FilesProof", "verify_files"]

TAKING_OUT = ("removal", "erasure", "purge")
FILES = "artifacts"
SHOWN = 200
CHUNK = 1 << 20
_leaves = msgspec.msgpack.Decoder(Leaves).decode
_note = msgspec.json.Decoder(FilesNote).decode


class FilesProof(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify_files` found.

    `files` are as they were sent, `waiting` of them not in the artifact store yet; `unreached` says
    of which folders nothing could be read.
    """

    intact: bool
    files: int
    waiting: int
    differences: list[Difference]
    unreached: dict[str, str]


def verify_files(tracking_uri: str) -> FilesProof:
    """Read every file that the chain has a digest of, and compare.

    Raises:
        NotFound: there is no chain in that database.
        StoreError: the database cannot be read.
    """
    with answering(), open_proven(tracking_uri) as (writer, cursor):
        expected = _expected(cursor)
        waiting = _waiting(cursor)
        folders = _folders(writer, cursor, expected)
    files, waits = 0, 0
    differences: list[Difference] = []
    unreached: dict[str, str] = {}
    for run_id, leaves in expected.items():
        late = {path: digest for path, digest in leaves.items() if path in waiting[run_id]}
        there = waiting[run_id]
        if len(late) < len(leaves):
            folder = folders.get(run_id, "")
            try:
                there = {**_stored(folder, leaves.keys() - late.keys()), **there}
            except Exception as exc:  # noqa: BLE001 - every kind of store has errors of its own
                unreached[folder] = f"{type(exc).__name__}: {exc}"[:SHOWN]
                leaves = late
        for path, digest in leaves.items():
            if there.get(path) == digest:
                files, waits = files + 1, waits + (path in late)
            else:
                what = "changed" if path in there else "removed"
                differences.append(Difference(what, FILES, run_id))
    return FilesProof(
        intact=not differences and not unreached,
        files=files,
        waiting=waits,
        differences=differences,
        unreached=unreached,
    )


def _expected(cursor: Any) -> dict[str, dict[str, str]]:
    """By run: digests of files by those of their paths, without what was taken out since."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for link in links(cursor):
        try:
            if link.kind in TAKING_OUT:
                for record_id, _, _ in _leaves(link.leaves).records:
                    found.pop(record_id.hex(), None)
            elif link.note:
                for leaf in _note(link.note).files:
                    found[leaf.run_id][leaf.path] = leaf.sha256
        except msgspec.MsgspecError:
            continue  # it was tampered with, which `verify` tells
    return {run_id: files for run_id, files in found.items() if files}


def _waiting(cursor: Any) -> dict[str, dict[str, str]]:
    """The same of files that wait for the artifact store."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    cursor.execute("SELECT record FROM llm_artifacts ORDER BY received_ms, producer_id, seq")
    for leaf in _leaves_of(record for (record,) in cursor.fetchall()):
        found[leaf.run_id][leaf.path] = leaf.sha256
    return found


def _leaves_of(records: Iterable[str]) -> Iterator[FileLeaf]:
    for text in records:
        try:
            record = decode(base64.b64decode(text))
        except (RecordError, ValueError):
            continue  # what it was is told as removed
        if isinstance(record, Artifact):
            yield file_leaf(record.run_id, record)


def _folders(writer: Writer, cursor: Any, run_ids: Iterable[str]) -> dict[str, str]:
    wanted = "SELECT run_uuid, artifact_uri FROM runs WHERE run_uuid IN ({ids})"
    writer.among(cursor, wanted, list(run_ids))
    return {str(run_id): str(folder or "") for run_id, folder in cursor.fetchall()}


def _stored(folder: str, wanted: Iterable[str]) -> dict[str, str]:
    """Digests of the wanted files of a folder, by the digests of their paths."""
    from flowledger.store.uploads import repository_of

    if not folder:
        return {}
    repository, paths = repository_of(folder), set(wanted)
    found: dict[str, str] = {}
    for path in _paths(repository, None):
        name = hashlib.sha256(path.encode()).hexdigest()
        if name in paths:
            with tempfile.TemporaryDirectory(prefix="flowledger-") as place:
                found[name] = _digest(Path(repository.download_artifacts(path, place)))
    return found


def _paths(repository: Any, folder: str | None) -> Iterator[str]:
    for one in repository.list_artifacts(folder):
        if one.is_dir:
            yield from _paths(repository, one.path)
        else:
            yield one.path


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while piece := data.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()
