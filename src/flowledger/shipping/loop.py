"""The shipping loop: deliver, wait, back off when the store does not take it."""

import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from flowledger import logs
from flowledger.errors import JournalError, StoreError, StoreOutdated
from flowledger.shipping.drain import Drain
from flowledger.shipping.private import write_private
from flowledger.store import Sink

__all__ = ["Loop", "Status", "read_status"]

POLL_SECONDS = 0.15
FIRST_BACK_OFF_SECONDS = 0.2
LONGEST_BACK_OFF_SECONDS = 30.0
STATUS_FILE = "status.json"
NOTHING_SAID = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What the last shipper of a folder had to say, for `flowledger doctor`.

    `error` is None while the store takes what it is given. Times are Unix seconds.
    """

    pid: int
    at: float
    error: str | None = None


class Loop:
    """Empties one journal folder into a sink that may come and go.

    Args:
        folder: the journal folder.
        open_sink: makes the sink; called again after it failed.
        owned_by: producer whose live journal is ours to ship; everyone's when empty.
    """

    def __init__(self, folder: Path, open_sink: Callable[[], Sink], owned_by: str = "") -> None:
        self._folder = folder
        self._open_sink = open_sink
        self._owned_by = owned_by
        self._sink: Sink | None = None
        self._drain: Drain | None = None
        self._failures = 0
        self.outdated = False  # whether this flowledger must not write to the store
        self._said: str | None = NOTHING_SAID

    @property
    def error(self) -> str | None:
        """Why the last batch was not taken, or None when it was."""
        return self._said or None

    @property
    def live_writers(self) -> int:
        """How many processes may still append to the folder."""
        return self._drain.live_writers if self._drain else 0

    def turn(self) -> float:
        """Deliver one batch; returns how long to wait before the next turn, in seconds."""
        self.outdated = False
        try:
            delivered = self._step()
        except (StoreError, JournalError, OSError) as exc:
            self.outdated = isinstance(exc, StoreOutdated)
            return self._failed(str(exc))
        except Exception as exc:  # noqa: BLE001 - whatever a driver raises, the journal stays
            logs.warn("shipping", "the store failed in an unknown way:\n%s", logs.stack_of(exc))
            return self._failed(f"{type(exc).__name__}: {exc}")
        if self._failures:
            logging.getLogger("flowledger.shipping").info("the store takes calls again")
        self._say(None)
        self._failures = 0
        return 0.0 if delivered else POLL_SECONDS

    def close(self) -> None:
        """Let go of the journals and the store."""
        if self._drain is not None:
            self._drain.close()
        if self._sink is not None:
            self._sink.close()
        self._drain = self._sink = None

    def _step(self) -> int:
        if self._drain is None:
            self._sink = self._open_sink()
            self._drain = Drain(self._folder, self._sink, self._owned_by)
        return self._drain.step()

    def _failed(self, error: str) -> float:
        self._failures += 1
        logs.warn("shipping", "calls wait in the journal, the store does not take them: %s", error)
        self._say(error)
        self.close()  # whatever comes back may be another database or another server
        wait = min(LONGEST_BACK_OFF_SECONDS, FIRST_BACK_OFF_SECONDS * 2.0 ** min(self._failures, 9))
        return wait * random.uniform(0.7, 1.0)

    def _say(self, error: str | None) -> None:
        """Leave the state where `doctor` finds it, when it changed."""
        if error == self._said:
            return
        self._said = error
        status = Status(pid=os.getpid(), at=time.time(), error=error)
        try:
            write_private(self._status_path, msgspec.json.encode(status))
        except OSError as exc:
            logs.warn("shipping", "the state of shipping cannot be written: %s", exc)

    @property
    def _status_path(self) -> Path:
        return self._folder / STATUS_FILE


def read_status(folder: Path) -> Status | None:
    """What the last shipper of a folder had to say, or None when it said nothing yet."""
    try:
        return msgspec.json.decode((folder / STATUS_FILE).read_bytes(), type=Status)
    except (OSError, msgspec.DecodeError):
        return None
