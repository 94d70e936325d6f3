"""The store: one promise, three ways to keep it.

`open_sink` chooses the way. Importing this package loads neither SQLAlchemy nor MLflow.
"""

import gc
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from flowledger.config import Destination
from flowledger.errors import StoreMisconfigured

__all__ = ["Refusal", "Sink", "freeze_loaded_objects", "open_sink"]


class Refusal(NamedTuple):
    """A record the store will never take: its place in the batch, and why."""

    place: int
    reason: str


class Sink(Protocol):
    """Where a shipping loop delivers records.

    Called from one thread, by one loop at a time; several sinks, in several processes and on
    several machines, may write to the same store at once.
    """

    batch_bytes: int
    """How much to deliver at once: what is lost of work when a delivery breaks off."""

    def write(self, payloads: Sequence[bytes], *, redelivered: bool = False) -> list[Refusal]:
        """Store a batch of encoded records; when this returns, they are committed.

        Writing a record again changes nothing: its id is known already. An empty batch is a chance
        to do what was put off; it is written whenever nothing waits.

        Args:
            payloads: encoded records, a `Producer` before the first record it wrote.
            redelivered: some of the batch may be stored already, after a fault.

        Returns:
            The records refused for good, each with a reason; all others are stored.

        Raises:
            StoreUnavailable: nothing is promised of this batch; deliver it again later.
            StoreMisconfigured: the same, until somebody changes what the message says.
        """
        ...

    def close(self) -> None:
        """Let go of connections; the sink is not used again."""
        ...


def open_sink(destination: Destination, token: str = "") -> Sink:
    """The sink for a destination: bulk SQL, a flowledger server, or MLflow's public API.

    Args:
        destination: the store and how calls are to be written to it.
        token: bearer key for a flowledger server.

    Raises:
        StoreUnavailable: the store does not answer now.
        StoreMisconfigured: the store cannot be used as it is, or a package is missing.
    """
    scheme = destination.tracking_uri.partition(":")[0].partition("+")[0]
    try:
        if scheme in ("http", "https"):
            from flowledger.store.http import HttpSink, is_flowledger

            if is_flowledger(destination.tracking_uri):
                return HttpSink(destination.tracking_uri, token)
        elif scheme in ("sqlite", "postgresql"):
            from flowledger.store.bulk import open_bulk

            return open_bulk(destination)
        from flowledger.store.plain import PlainSink

        return PlainSink(destination)
    except ImportError as exc:
        raise StoreMisconfigured(
            f"{exc.name or exc} is not installed where calls are shipped to "
            f"{destination.redacted().tracking_uri}: pip install 'flowledger[server]' "
            "(and 'flowledger[postgres]' for PostgreSQL), or set the tracking URI to a flowledger "
            "server"
        ) from exc


def freeze_loaded_objects() -> None:
    """Let the garbage collector pass over what is loaded now, for as long as this process lives.

    MLflow leaves hundreds of thousands of objects, and each full collection would walk them all.
    Only for processes of our own: in an application, frozen garbage would never be freed.
    """
    gc.collect()
    gc.freeze()
