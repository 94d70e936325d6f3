"""The sinks that ingest writes to: several at once on PostgreSQL, one on SQLite."""

import logging
import queue
from collections.abc import Callable, Sequence

from flowledger.config import Destination
from flowledger.errors import StoreError, StoreOutdated
from flowledger.server.crew import Crew
from flowledger.server.observed import ObservedWriter, Observer
from flowledger.server.problems import first_line, unavailable
from flowledger.server.settings import ServerSettings
from flowledger.store import Refusal, freeze_loaded_objects
from flowledger.store.bulk import BulkSink, open_bulk

__all__ = ["Sinks"]

AWAY = "the database does not take calls now"
SERVED = "mlflow-artifacts:/"  # what MLflow's server keeps in --artifacts-destination

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
        self._free: queue.LifoQueue[BulkSink | None] = queue.LifoQueue()
        for _ in range(count):
            self._free.put(None)
        self._crew = Crew(
            "flowledger-store",
            threads=count,
            places=settings.batches_in_flight,
            seconds=settings.store_seconds,
        )

    async def write(self, read: Callable[[], Sequence[bytes]], sender: str) -> list[Refusal]:
        """Read a batch and store it, both in a thread; committed when this returns.

        Args:
            read: makes the encoded records; what it raises reaches the caller.
            sender: the user who delivers it, as `BulkSink.write` takes it.

        Raises:
            HTTPException: 429 too many batches at once, 503 the database is away.
        """
        return await self._crew.do(lambda: self._write(read(), sender))

    def close(self) -> None:
        """Begin nothing more, and let go of the connections that are free."""
        self._crew.close()
        while not self._free.empty():
            sink = self._free.get_nowait()
            if sink is not None:
                sink.close()

    def _write(self, payloads: Sequence[bytes], sender: str) -> list[Refusal]:
        sink = self._free.get()
        try:
            if sink is None:
                sink = self._open()
            return sink.write(payloads, sender=sender)
        except StoreError as exc:
            if sink is not None:
                sink.close()
            sink = None
            _log.warning("a batch is not stored: %s", first_line(exc))
            reason = str(exc) if isinstance(exc, StoreOutdated) else AWAY
            raise unavailable(f"{reason}: keep the batch and send it again") from exc
        finally:
            self._free.put(sink)

    def _open(self) -> BulkSink:
        sink = open_bulk(
            self._destination,
            lambda writer: ObservedWriter(writer, self._observers),
            (self._destination.artifact_root, SERVED),
        )
        freeze_loaded_objects()
        return sink
