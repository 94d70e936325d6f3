"""Who may deliver a process's records: the sender of the first of them, and nobody else.

A producer id is no secret: it stands in every export of a call that one may read. So it is bound to
whoever delivers it first, which happens before anybody else can know it.

A sender is one of MLflow's users, by name, or a shipper, which is "": a collector, whoever holds a
key, or anybody where nobody logs in. Shippers may write every experiment as it is, and they must be
able to take over from each other: a key is rotated, authentication is switched on, one program
delivers what another left in its journal. A user may have rights on one experiment alone.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from flowledger.records import number_of
from flowledger.store.writers import Writer

__all__ = ["FOREIGN", "SHIPPER", "Senders"]

SHIPPER = ""
AT_ONCE = 500
MOST_REMEMBERED = 10_000
FOREIGN = (
    "its process belongs to another sender: send it as the user who sent the first records of that "
    "process, or with a key where those came from an application"
)


class Senders:
    """The senders of producers in one database, used by one thread.

    Args:
        writer: the database.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._known: set[tuple[str, str]] = set()

    def find_foreign(self, payloads: Sequence[bytes], sender: str) -> set[int]:
        """Bind unbound producers to this sender; return the places of records of other senders.

        The binding is committed before the batch: of two senders at the same time the second is
        refused, even when the first must deliver its batch again.
        """
        named = [_producer_of(payload) for payload in payloads]
        foreign = self._claim({name for name in named if name}, sender)
        return {place for place, name in enumerate(named) if name in foreign}

    def forget(self) -> None:
        """Ask the database again: it may be another one."""
        self._known.clear()

    def _claim(self, producers: set[str], sender: str) -> set[str]:
        unknown = sorted(name for name in producers if (name, sender) not in self._known)
        if not unknown:
            return set()
        with self._writer.transaction() as cursor:
            bound = self._read(cursor, unknown)
            if new := [name for name in unknown if name not in bound]:
                # In one order, so that two of these wait for each other at most once.
                cursor.executemany(_insert(self._writer.mark), [(name, sender) for name in new])
                bound |= self._read(cursor, new)  # another sender may have been first meanwhile
        foreign = {name for name in unknown if bound[name] != sender}
        if len(self._known) > MOST_REMEMBERED:
            self._known.clear()
        self._known.update((name, sender) for name in unknown if name not in foreign)
        return foreign

    def _read(self, cursor: Any, producers: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for start in range(0, len(producers), AT_ONCE):
            some = producers[start : start + AT_ONCE]
            marks = ", ".join([self._writer.mark] * len(some))
            cursor.execute(f"SELECT id, user_name FROM llm_senders WHERE id IN ({marks})", some)
            found.update((row[0], row[1]) for row in cursor)
        return found


class _Head(msgspec.Struct):
    producer: str = ""


_head = msgspec.msgpack.Decoder(_Head)


def _producer_of(payload: bytes) -> str:
    """The producer whose number the record would take, readable or not; empty without one."""
    try:
        producer = _head.decode(payload).producer
    except (msgspec.DecodeError, UnicodeError):
        return number_of(payload)[0]
    return producer if len(producer) <= 32 and "\0" not in producer else ""


def _insert(mark: str) -> str:
    return f"INSERT INTO llm_senders (id, user_name) VALUES ({mark}, {mark}) ON CONFLICT DO NOTHING"
