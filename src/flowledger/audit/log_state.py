"""What the evidence log states about each record, and which of its entries break the rules.

Whoever may append an entry could otherwise falsify history before a kept head: change a row, and
append an entry that states the record as it now is. So a record that is in the log is stated again
only by an event (correction, removal, erasure or purge), which `verify` lists.
"""

from collections.abc import Iterator

import msgspec

from flowledger.audit.comparing import CHAIN, Difference
from flowledger.store.chain import EVENTS, FIRST, STORING, Link
from flowledger.store.leaves import Leaves, RowLeaf
from flowledger.store.rows import LEDGER

__all__ = ["Event", "LogState", "decode_leaves", "owner_bytes"]

KINDS = frozenset((FIRST, *STORING, *EVENTS))
_decode = msgspec.msgpack.Decoder(Leaves).decode
_decode_note = msgspec.json.Decoder(dict[str, int]).decode


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A change of what was stored before: a correction, removal, erasure or purge.

    `since_head` says that it was appended after the head that was given; such an event fails
    verification unless it is `allowed`.
    """

    number: int
    kind: str
    at_ms: int
    records: int
    note: str
    since_head: bool = False
    allowed: bool = True

    @classmethod
    def of(cls, link: Link) -> "Event":
        """The event that an entry is about."""
        return cls(
            number=link.number,
            kind=link.kind,
            at_ms=link.at_ms,
            records=link.records,
            note=link.note,
        )

    def judged(self, head_number: int | None, allow: frozenset[str]) -> "Event":
        """The event as seen from a head, None when no head was given or it is not in the log."""
        since = head_number is not None and self.number > head_number
        return msgspec.structs.replace(
            self, since_head=since, allowed=not since or self.kind in allow
        )


class LogState:
    """What the entries taken so far come to.

    `stated` has, for each record that is there, the number of the entry with the last word on it.
    `latest` has only the records that several entries name, so that it stays small. `swept` are
    entries, by number, that took whole ranges of calls out.
    """

    def __init__(self) -> None:
        self.first: Link | None = None
        self.stated: dict[bytes, int] = {}
        self.latest: dict[bytes, int] = {}
        self.swept: list[tuple[int, Leaves]] = []
        self.events: list[Event] = []
        self.adopted = 0  # calls from before the log that an event may have been about, at most
        self._rows: dict[tuple[str, str, bytes], tuple[int, RowLeaf]] = {}
        self._at_ms = 0

    def take(self, link: Link, leaves: Leaves | None) -> list[Difference]:
        """Take the next entry; returns what is wrong with it.

        Args:
            link: the entry, its hash already checked.
            leaves: what it states; None when that cannot be read.
        """
        self.first = self.first or link
        found = list(self._rules_broken(link, leaves))
        self._at_ms = max(self._at_ms, link.at_ms)
        if link.kind not in KINDS or leaves is None:
            return found
        if link.kind in EVENTS:
            self.events.append(Event.of(link))
            self._take_event(link.number, leaves)
        else:
            found += self._take_new(link.number, leaves)
        found += self._take_rows(link, leaves)
        return found

    def has(self, record_id: bytes) -> bool:
        """Whether the log states that the record is there."""
        number = self.stated.get(record_id)
        return number is not None and not self.is_swept(record_id, number)

    def is_swept(self, record_id: bytes, since: int = 0) -> bool:
        """Whether an entry after this number took the call out with others around it."""
        return is_swept(self.swept, record_id, since)

    @property
    def outside(self) -> dict[str, int]:
        """How many rows of each table were stored before the log began, as its first entry says."""
        if self.first is None or self.first.kind != FIRST:
            return {}
        try:
            noted = _decode_note(self.first.note) if self.first.note else {}
        except msgspec.MsgspecError:
            noted = {}
        counts = {LEDGER: self.first.records, **noted}
        return {table: count for table, count in counts.items() if count}

    def rows(self) -> Iterator[RowLeaf]:
        """The single rows that are there, as last stated and not superseded by an event."""
        return (leaf for at, leaf in self._rows.values() if not self._is_superseded(at, leaf))

    def _rules_broken(self, link: Link, leaves: Leaves | None) -> Iterator[Difference]:
        number = str(link.number)
        if link.kind not in KINDS or (link.kind == FIRST) != (link.number == 1):
            yield Difference("unknown kind", CHAIN, number)
        if leaves is None:
            yield Difference("unreadable", CHAIN, number)
        if link.at_ms < self._at_ms:
            yield Difference("dated back", CHAIN, number)

    def _take_event(self, number: int, leaves: Leaves) -> None:
        for record_id, shape, _ in leaves.records:
            self.adopted += record_id not in self.stated and record_id not in self.latest
            self.latest[record_id] = number
            if leaves.shapes[shape]:
                self.stated[record_id] = number
            else:
                self.stated.pop(record_id, None)
        if leaves.swept:
            self.adopted += sum(calls for _, _, calls in leaves.swept)
            self.swept.append((number, Leaves(swept=leaves.swept)))

    def _take_new(self, number: int, leaves: Leaves) -> Iterator[Difference]:
        stated, latest = self.stated, self.latest
        for record_id, _, _ in leaves.records:
            before = stated.get(record_id)
            if before is not None and not self.is_swept(record_id, before):
                latest.setdefault(record_id, before)  # the first word stands
                yield Difference("restated", LEDGER, record_id.hex())
                continue
            if before is not None or record_id in latest:  # it was taken out and has come again
                latest[record_id] = number
            stated[record_id] = number

    def _take_rows(self, link: Link, leaves: Leaves) -> Iterator[Difference]:
        for leaf in leaves.rows:
            key = (leaf.table, leaf.owner, leaf.key)
            at, before = self._rows.get(key, (0, leaf))
            is_final = before.final and before.digest != leaf.digest
            if link.kind not in EVENTS and is_final and not self._is_superseded(at, before):
                yield Difference("restated", leaf.table, leaf.owner)
            else:
                self._rows[key] = (link.number, leaf)

    def _is_superseded(self, number: int, leaf: RowLeaf) -> bool:
        return number <= self.latest.get(owner_bytes(leaf.owner), 0)


def is_swept(swept: list[tuple[int, Leaves]], record_id: bytes, since: int = 0) -> bool:
    """Whether an entry after this number took the call out with others around it."""
    return any(number > since and leaves.sweep(record_id) for number, leaves in swept)


def decode_leaves(data: bytes) -> Leaves | None:
    """What an entry states; None when it is not readable, since anyone may have written it."""
    try:
        leaves = _decode(data)
    except (msgspec.MsgspecError, ValueError):
        return None
    return leaves if all(shape < len(leaves.shapes) for _, shape, _ in leaves.records) else None


def owner_bytes(owner: str) -> bytes:
    """A record's id as the log has it; rows may be owned by what has another kind of name."""
    try:
        return bytes.fromhex(owner)
    except ValueError:
        return owner.encode()
