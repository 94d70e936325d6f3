"""The sinks that ingest writes to: several at once on PostgreSQL, one on SQLite."""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from flowledger.config import Destination
from flowledger.errors import StoreError
from flowledger.server.crew import Crew
from flowledger.server.observed import ObservedWriter, Observer
from flowledger.server.problems import first_line, unavailable
from flowledger.server.settings import ServerSettings
from flowledger.store import Refusal, Sink, freeze_loaded_objects, open_sink
from flowledger.store.bulk import BulkSink, open_bulk

__all__ = ["Sinks"]

_log = logging.getLogger("flowledger.server")


class Sinks:
    """Stores batches of one worker, some at the same time and some waiting, no more than that.

    Each sink is opened by the first batch that needs it, and anew after the database failed.

    Args:
        destination: the database, and how calls are written to it.
        settings: `sinks`, `batches_in_flight` and `store_seconds`.
        observers: told which calls are new in the ledger, in the thread that stored them.
    """

    def __init__(
        self, destination: Destination, settings: ServerSettings, observers: Sequence[Observer]
    ) -> None:
        self._destination = destination
        self._observers = observers
        count = 1 if destination.tracking_uri.startswith("sqlite") else settings.sinks
        self._free: queue.LifoQueue[Sink | None] = queue.LifoQueue()
        for _ in range(count):
            self._free.put(None)
        self._plain = threading.Lock()
        self._crew = Crew(
            "flowledger-store",
            threads=count,
            places=settings.batches_in_flight,
            seconds=settings.store_seconds,
        )

    async def write(self, read: Callable[[], Sequence[bytes]]) -> list[Refusal]:
        """Read a batch and store it, both in a thread; committed when this returns.

        Args:
            read: makes the encoded records; what it raises reaches the caller.

        Raises:
            HTTPException: 429 too many batches at once, 503 the database is away.
        """
        return await self._crew.do(lambda: self._write(read()))

    def close(self) -> None:
        """Begin nothing more, and let go of the connections that are free."""
        self._crew.close()
        while not self._free.empty():
            sink = self._free.get_nowait()
            if sink is not None:
                sink.close()

    def _write(self, payloads: Sequence[bytes]) -> list[Refusal]:
        sink = self._free.get()
        try:
            if sink is None:
                sink = self._open()
            return self._write_to(sink, payloads)
        except StoreError as exc:
            if sink is not None:
                sink.close()
            sink = None
            _log.warning("a batch is not stored: %s", first_line(exc))
            raise unavailable(
                "the database does not take calls now: keep the batch and send it again"
            ) from exc
        finally:
            self._free.put(sink)

    def _write_to(self, sink: Sink, payloads: Sequence[bytes]) -> list[Refusal]:
        # MLflow's public API has neither our ids nor transactions: one at a time, and looked up,
        # since a shipper does not say whether it sends a batch again.
        with nullcontext() if isinstance(sink, BulkSink) else self._plain:
            return sink.write(payloads, redelivered=True)

    def _open(self) -> Sink:
        sink = open_bulk(self._destination, lambda writer: ObservedWriter(writer, self._observers))
        freeze_loaded_objects()
        # None: a revision of MLflow's that was never tested.
        return open_sink(self._destination) if sink is None else sink
