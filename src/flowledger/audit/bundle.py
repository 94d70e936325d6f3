"""Evidence in one file: calls, their part of the chain, and a signature over every byte.

Lines of JSON: the manifest, the links of the chain (with leaves where they are about the calls),
the calls with their rows, and a seal. The seal signs the SHA-256 of all lines before it and has one
form, so no bit of the file can change: an archive has headers that nothing covers.
"""

import base64
import hashlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from flowledger.audit.comparing import Difference, judged
from flowledger.audit.log_state import Event, LogState, decode_leaves
from flowledger.audit.proof import links, open_proven
from flowledger.audit.signing import is_signed, key_path, load_key, public_text
from flowledger.config import Settings
from flowledger.errors import ConfigError, NotFound
from flowledger.store.chain import BEGINNING, FIRST, Link, rows_of
from flowledger.store.leaves import KEPT, OF_A_CALL, Leaves
from flowledger.store.rows import LEDGER
from flowledger.store.writers import Writer, answering

__all__ = ["Checked", "Manifest", "export", "verify_file"]

FORMAT = 1
AT_ONCE = 500
LONGEST_LINE = 256 << 20
MOST_PROBLEMS = 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the file, times in Unix milliseconds; `outside` calls are older than the chain."""

    format: int
    made_ms: int
    first_ms: int
    end_ms: int
    calls: int
    outside: int
    links: int
    head: str
    public_key: str


class _Seal(msgspec.Struct, frozen=True, kw_only=True):
    sha256: str
    signature: str


class _LinkLine(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    kind: str
    at_ms: int
    records: int
    note: str
    leaves_sha256: str
    leaves: str | None
    hash: str


class _CallLine(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tables: dict[str, list[list[Any]]]


class _Line(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    manifest: Manifest | None = None
    link: _LinkLine | None = None
    call: _CallLine | None = None
    seal: _Seal | None = None


_decode = msgspec.json.Decoder(_Line).decode


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify_file` found; `pinned` says that the key is the one that was asked for.

    `intact` also needs every event since the head that was given to be allowed.
    """

    intact: bool
    problems: list[str]
    calls: int
    outside: int
    links: int
    head: str
    public_key: str
    pinned: bool
    events: list[Event]


def export(settings: Settings, first_ms: int, end_ms: int, file: Path) -> Manifest:
    """Write the calls of a time, their rows and the chain, signed.

    Args:
        settings: the database and the key.
        first_ms, end_ms: Unix milliseconds; calls that began from the first to before the last.
        file: where to; it must not be there.

    Raises:
        ConfigError: the time is empty, the file is there, or the key cannot be used.
        NotFound: there is no key, or nothing is stored.
        StoreError: the database cannot be read.
    """
    if first_ms >= end_ms:
        raise ConfigError("--to must be after --from")
    key = load_key(key_path(settings))
    try:
        out = os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except FileExistsError:
        raise ConfigError(f"{file} is there already: name another") from None
    except OSError as exc:
        raise ConfigError(f"{file} cannot be written: {exc.strerror}") from exc
    try:
        with out, answering(), open_proven(settings.tracking_uri) as (writer, cursor):
            sealed = _Sealed(out)
            manifest = _write(writer, cursor, (first_ms, end_ms), public_text(key), sealed)
            digest = sealed.digest.digest()
            seal = _Seal(sha256=digest.hex(), signature=key.sign(digest).hex())
            out.write(_encoded(_Line(seal=seal)))
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return manifest


def verify_file(
    file: Path,
    *,
    key: str | None = None,
    head: str | None = None,
    allow: Collection[str] = (),
) -> Checked:
    """Check a file that `export` wrote, without a database.

    Args:
        file: the file.
        key: the public key that must have signed it; without it anybody may have.
        head: a hash of the chain that must be in it.
        allow: kinds of events that may follow the head, as for `verify`.

    Raises:
        NotFound: there is no such file.
    """
    try:
        with file.open("rb") as data:
            return _Checking(key, head, allow).check(data)
    except OSError as exc:
        raise NotFound(f"{file} cannot be read: {exc.strerror}") from exc


class _Sealed:
    """Writes lines and hashes them."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.digest = hashlib.sha256()

    def write(self, line: _Line) -> None:
        data = _encoded(line)
        self._out.write(data)
        self.digest.update(data)


def _write(
    writer: Writer, cursor: Any, window: tuple[int, int], public_key: str, out: _Sealed
) -> Manifest:
    cursor.execute(
        f"SELECT id FROM llm_calls WHERE start_ms >= {window[0]} AND start_ms < {window[1]}"
        " ORDER BY id"
    )
    ids = [str(row[0]) for row in cursor.fetchall()]
    wanted = {bytes.fromhex(one) for one in ids}
    covered: set[bytes] = set()
    about: set[int] = set()
    state = LogState()
    count, chain_head = 0, BEGINNING
    for link in links(cursor):
        leaves = decode_leaves(link.leaves)
        broken = state.take(link, _without_rows(leaves))
        again = {bytes.fromhex(one.id) for one in broken if one.what == "restated"}
        if again:  # with what named these first, so that whoever checks the file finds it, too
            about |= {link.number, *(state.latest[one] for one in again)}
        if leaves is not None:
            here = {record_id for record_id, _, _ in leaves.records} & wanted
            covered |= here
            about |= {link.number} if here or leaves.swept else set()
        count, chain_head = count + 1, link.hash
    manifest = Manifest(
        format=FORMAT,
        made_ms=time.time_ns() // 1_000_000,
        first_ms=window[0],
        end_ms=window[1],
        calls=len(ids),
        outside=len(wanted - covered),
        links=count,
        head=chain_head,
        public_key=public_key,
    )
    out.write(_Line(manifest=manifest))
    for link in links(cursor):
        out.write(_Line(link=_link_line(link, link.number in about)))
    for call in _calls(writer, cursor, ids):
        out.write(_Line(call=call))
    return manifest


def _without_rows(leaves: Leaves | None) -> Leaves | None:
    """What an entry states of whole records: a file has no single rows, nor all entries of them."""
    return leaves and Leaves(leaves.shapes, leaves.records, [], leaves.swept)


def _link_line(link: Link, whole: bool) -> _LinkLine:
    return _LinkLine(
        number=link.number,
        kind=link.kind,
        at_ms=link.at_ms,
        records=link.records,
        note=link.note,
        leaves_sha256=hashlib.sha256(link.leaves).hexdigest(),
        leaves=base64.b64encode(link.leaves).decode() if whole else None,
        hash=link.hash,
    )


def _calls(writer: Writer, cursor: Any, ids: list[str]) -> Iterator[_CallLine]:
    for start in range(0, len(ids), AT_ONCE):
        some = ids[start : start + AT_ONCE]
        tables: dict[str, dict[str, list[list[Any]]]] = {one: {} for one in some}
        for table in OF_A_CALL:
            kept = KEPT[table]
            place = kept.columns.index(kept.owner)
            for row in rows_of(writer, cursor, table, [kept.prefix + one for one in some]):
                of_one = tables[row[place].removeprefix(kept.prefix)]
                of_one.setdefault(table, []).append(list(row))
        for call_id in some:
            yield _CallLine(id=call_id, tables=tables[call_id])


class _Checking:
    """One pass over a file."""

    def __init__(self, key: str | None, head: str | None, allow: Collection[str] = ()) -> None:
        self._key = key
        self._head = head
        self._head_number: int | None = None
        self._allow = frozenset(allow)
        self._state = LogState()
        self._problems: list[str] = []
        self._manifest: Manifest | None = None
        self._seal: _Seal | None = None
        self._previous, self._number = BEGINNING, 0
        self._expected: dict[str, dict[str, tuple[bytes, bytes]]] = {}
        self._calls = self._outside = 0

    def check(self, data: BinaryIO) -> Checked:
        digest = hashlib.sha256()
        while raw := data.readline(LONGEST_LINE):
            if self._seal is not None:
                self._tell("something follows the seal")
                break
            try:
                line = _decode(raw)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                self._tell("a line is no evidence: the file was changed or cut off")
                break
            if line.seal is None:
                digest.update(raw)
            elif raw != _encoded(_Line(seal=line.seal)):
                self._tell("the seal is not as it is written")
            self._take(line)
        self._close(digest)
        return self._checked()

    def _tell(self, problem: str) -> None:
        if len(self._problems) < MOST_PROBLEMS:
            self._problems.append(problem)

    def _take(self, line: _Line) -> None:
        if line.manifest is not None:
            self._manifest = line.manifest
        if line.seal is not None:
            self._seal = line.seal
        if line.link is not None:
            self._take_link(line.link)
        if line.call is not None:
            self._take_call(line.call)

    def _take_link(self, told: _LinkLine) -> None:
        leaves = b""
        if told.leaves is not None:
            try:
                leaves = base64.b64decode(told.leaves, validate=True)
            except ValueError:
                self._tell(f"the leaves of link {told.number} cannot be read")
            if hashlib.sha256(leaves).hexdigest() != told.leaves_sha256:
                self._tell(f"the leaves of link {told.number} were changed")
        link = Link(told.number, told.kind, told.at_ms, told.records, told.note, b"", told.hash)
        if told.number != self._number + 1:
            self._tell(f"links are missing before {told.number}")
        elif told.hash != link.hashed(self._previous, told.leaves_sha256):
            self._tell(f"link {told.number} was changed")
        self._number, self._previous = told.number, told.hash
        if told.hash == self._head:
            self._head_number = told.number
        found = Leaves() if told.leaves is None else decode_leaves(leaves)
        for broken in self._state.take(link, _without_rows(found)):
            self._tell(_problem(broken))
        if found is not None:
            self._expect(told.number, found)

    def _expect(self, number: int, leaves: Leaves) -> None:
        for record_id, shape, digests in leaves.records:
            if self._state.latest.get(record_id, number) == number:
                self._expected[record_id.hex()] = leaves.digests(shape, digests)
        if leaves.swept:
            self._sweep(leaves)

    def _sweep(self, leaves: Leaves) -> None:
        """Calls that were taken out with others around them must not be in the file."""
        for one, tables in self._expected.items():
            if LEDGER in tables and leaves.sweep(bytes.fromhex(one)):
                self._expected[one] = {}

    def _take_call(self, call: _CallLine) -> None:
        self._calls += 1
        expected = self._expected.get(call.id)
        if expected is None:
            self._outside += 1
            return
        for table in OF_A_CALL:
            keys, digest = expected.get(table, (b"", b""))
            what, _ = judged(table, call.id, call.tables.get(table, []), keys, digest)
            if what:
                self._tell(f"call {call.id} was {what} in {table}")

    def _close(self, digest: Any) -> None:
        manifest, seal = self._manifest, self._seal
        if manifest is None or seal is None:
            self._tell("the file has no manifest or no seal: it was cut off")
            return
        if seal.sha256 != digest.hexdigest():
            self._tell("the file is not the one that was signed")
        if not is_signed(manifest.public_key, seal.signature, digest.digest()):
            self._tell("the signature is not that of the key in the file")
        if self._key is not None and self._key.strip().lower() != manifest.public_key:
            self._tell(f"it is signed with another key: {manifest.public_key}")
        if (self._calls, self._number) != (manifest.calls, manifest.links):
            self._tell("calls or links are missing")
        if self._outside != manifest.outside:
            self._tell("calls that no link knows were added")
        if self._previous != manifest.head:
            self._tell("the chain ends elsewhere than the manifest says")
        if self._state.outside and FIRST not in self._allow:
            self._tell("its log was begun when calls were stored already")
        if self._head is not None and self._head_number is None:
            self._tell("the head you gave is not in its chain")

    def _checked(self) -> Checked:
        manifest = self._manifest
        events = [one.judged(self._head_number, self._allow) for one in self._state.events]
        return Checked(
            intact=not self._problems and all(one.allowed for one in events),
            problems=self._problems,
            calls=self._calls,
            outside=self._outside,
            links=self._number,
            head=self._previous if self._number else "",
            public_key="" if manifest is None else manifest.public_key,
            pinned=self._key is not None,
            events=events,
        )


def _problem(broken: Difference) -> str:
    """What an entry of the log does that it must not, in a sentence."""
    return {
        "restated": f"call {broken.id} was stated again, and by no event",
        "unknown kind": f"entry {broken.id} is of an unknown kind",
        "unreadable": f"the leaves of link {broken.id} cannot be read",
        "dated back": f"entry {broken.id} is older than the one before it",
    }[broken.what]


def _encoded(line: _Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"
