"""One call's place in the chain: its link, and whether its rows are as they were stored."""

from collections.abc import Iterator
from typing import Any

import msgspec

from flowledger.audit.comparing import Difference, compare_records
from flowledger.audit.proof import links, open_proven
from flowledger.store.chain import EVENTS, Link
from flowledger.store.leaves import Leaves

__all__ = ["CallProof", "prove_call"]

AT_ONCE, MOST_LINKS = 5, 50
CHANGING = ", ".join(f"'{kind}'" for kind in EVENTS)
_decode = msgspec.msgpack.Decoder(Leaves).decode


class CallProof(msgspec.Struct, frozen=True, kw_only=True):
    """The link with the last word on a call.

    `kind` is what the link is of: a batch, a correction, a removal, an erasure or a purge.
    `differences` say which of the call's rows are not as that link has them.
    """

    number: int
    kind: str
    at_ms: int
    hash: str
    differences: list[Difference]


def prove_call(tracking_uri: str, call_id: str, received_ms: int) -> CallProof | None:
    """Compare one call with the chain; None when no link holds it, as from before there was one.

    This compares the call alone: that the chain is whole, `verify` says.

    Args:
        tracking_uri: a `sqlite:///` or `postgresql://` database.
        call_id: its id.
        received_ms: when it was stored, Unix milliseconds.

    Raises:
        NotFound: there is no chain in that database.
        StoreMisconfigured: it is no database.
        StoreUnavailable: it does not answer.
    """
    wanted = bytes.fromhex(call_id)
    with open_proven(tracking_uri) as (writer, cursor):
        found = next(_holding(_near(cursor, received_ms), wanted), None)
        if found is None:
            return None
        changes = links(cursor, f"WHERE number > {found[0].number} AND kind IN ({CHANGING})")
        link, digests = [found, *_holding(changes, wanted)][-1]
        compared = compare_records(writer, cursor, {call_id: digests})
    return CallProof(
        number=link.number,
        kind=link.kind,
        at_ms=link.at_ms,
        hash=link.hash,
        differences=compared.differences,
    )


def _near(cursor: Any, received_ms: int) -> Iterator[Link]:
    """The links that were written right after a call was received."""
    cursor.execute(f"SELECT MIN(number) FROM llm_chain WHERE at_ms >= {int(received_ms)}")
    first = cursor.fetchone()[0]
    for number in range(first or 0, (first or 0) + MOST_LINKS, AT_ONCE):
        yield from links(cursor, f"WHERE number >= {number} AND number < {number + AT_ONCE}")


def _holding(
    some: Iterator[Link], wanted: bytes
) -> Iterator[tuple[Link, dict[str, tuple[bytes, bytes]]]]:
    """Those of the links that have a record among their leaves, with what they say of it."""
    for link in some:
        try:
            leaves = _decode(link.leaves)
        except (msgspec.MsgspecError, ValueError):
            continue  # it was tampered with, which `verify` tells
        for record_id, shape, digests in leaves.records:
            if record_id == wanted and shape < len(leaves.shapes):
                yield link, leaves.digests(shape, digests)
        if leaves.sweep(wanted):
            yield link, {}
