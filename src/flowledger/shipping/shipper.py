"""The application's side of shipping: one daemon thread.

It ships this process's journal to a flowledger server, or sees to it that a collector process runs
for every other kind of store.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from flowledger import logs
from flowledger.config import Settings
from flowledger.errors import JournalError, StoreError
from flowledger.journal import Writer, acknowledged_offset, rejected_records
from flowledger.shipping.collector import collector_runs, note_destination, start_collector
from flowledger.shipping.loop import Loop
from flowledger.store import open_sink

__all__ = ["Shipper", "start_shipping"]

LOOK_SECONDS = 1.0
FLUSH_POLL_SECONDS = 0.02
RESTART_SECONDS = 10.0


# A child that is forked in the middle of an import can never end it, nor import the same itself.
_importing = threading.Lock()
os.register_at_fork(
    before=_importing.acquire,
    after_in_parent=_importing.release,
    after_in_child=_importing.release,
)


class Shipper:
    """Gets this process's journal to the store, or somebody who does.

    Args:
        settings: the settings in force.
        writer: this process's journal.
        producer_id: names this process's segments.
    """

    def __init__(self, settings: Settings, writer: Writer, producer_id: str) -> None:
        self._settings = settings
        self._writer = writer
        self._folder = settings.journal_folder
        self._loop = Loop(
            self._folder,
            lambda: open_sink(settings.destination, settings.token),
            owned_by=producer_id,
        )
        self._turn: Callable[[], float] = self._choose
        self._chosen = threading.Event()
        self._stop = threading.Event()
        self._start_again_at = 0.0
        self._rejected: dict[Path, int] = {}
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="flowledger-shipping", daemon=True)

    def start(self) -> None:
        """Begin, in a thread that keeps no process alive."""
        self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait until the store has everything written so far.

        Returns:
            Whether every record since the last flush is stored: False when the time is up, and
            when one had no room in the journal, was damaged there, or was refused by the store.
        """
        lost_before = self._lost
        waiting = self._writer.written()
        deadline = time.monotonic() + timeout
        while waiting:
            for path, end in list(waiting.items()):
                offset = acknowledged_offset(path)
                if offset is None or offset >= end:
                    del waiting[path]
                    self._writer.delivered(path)
                    if rejected := rejected_records(path):
                        self._rejected[path] = rejected
            if time.monotonic() > deadline:
                break
            time.sleep(FLUSH_POLL_SECONDS if waiting else 0)
        self._lost = self._writer.dropped + sum(self._rejected.values())
        return not waiting and self._lost == lost_before

    def close(self) -> None:
        """See to it that somebody ships what is left; waits `exit_timeout` seconds at most."""
        if not self._writer.written():
            self._stop.set()
            return
        deadline = time.monotonic() + self._settings.exit_timeout
        self._chosen.wait(self._settings.exit_timeout)  # a short process leaves before it is known
        if self._turn == self._loop.turn:
            self.flush(deadline - time.monotonic())
        self._stop.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._turn == self._watch_collector:
            self._watch_collector()

    def _run(self) -> None:
        while True:
            wait = self._turn()
            if self._stop.wait(wait):
                self._loop.close()
                return

    def _choose(self) -> float:
        """Find out once who ships: this thread to a flowledger server, else a collector."""
        try:
            note_destination(self._settings)
        except OSError as exc:
            logs.warn("journal", "calls are not kept: %s", exc)
            if not self._folder.is_dir():
                return LOOK_SECONDS
        if self._settings.tracking_uri.startswith(("http://", "https://")):
            try:
                with _importing:
                    import encodings.idna  # noqa: F401 - sockets import it at their first use

                    from flowledger.store.http import is_flowledger
                ours = is_flowledger(self._settings.tracking_uri)
            except StoreError as exc:
                logs.warn("shipping", "calls wait in the journal: %s", exc)
                return LOOK_SECONDS
            self._turn = self._loop.turn if ours else self._watch_collector
        else:
            self._turn = self._watch_collector
        self._chosen.set()
        return 0.0

    def _watch_collector(self) -> float:
        """Start a collector when none runs, but not over and over when it cannot stay."""
        self._writer.reopen_if_removed()
        if self._settings.collector == "off":
            return LOOK_SECONDS
        try:
            if time.monotonic() > self._start_again_at and not collector_runs(self._folder):
                self._start_again_at = time.monotonic() + RESTART_SECONDS
                start_collector(self._settings)
        except (OSError, JournalError) as exc:
            logs.warn("shipping", "calls wait in the journal, no collector can start: %s", exc)
        return LOOK_SECONDS


def start_shipping(settings: Settings, writer: Writer, producer_id: str) -> Shipper:
    """Ship what this writer writes, in the background."""
    shipper = Shipper(settings, writer, producer_id)
    shipper.start()
    return shipper
