"""Sending arrivals to the application at their time, so many under way at once."""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from flowledger.cli.playback.application import Application
from flowledger.cli.playback.arrivals import Arrival
from flowledger.cli.playback.scenario import request_for

__all__ = ["Player"]

LOOK_SECONDS = 0.1


class Player:
    """Plays arrivals through an application.

    Args:
        application: answers requests, from threads.
        speed: how much faster than the trace; 0 for as fast as answers come.
        concurrency: how many requests may be under way.
    """

    def __init__(self, application: Application, speed: float, concurrency: int) -> None:
        self._application = application
        self._speed = speed
        self._concurrency = concurrency
        self._room = threading.Semaphore(concurrency)
        self._lock = threading.Lock()
        self._fault: Exception | None = None
        self._began = 0.0
        self.made = 0
        self.late = 0.0

    def play(self, arrivals: Iterable[Arrival], tell: Callable[[int], None]) -> None:
        """Play them all, and return when the last answer is there, also when interrupted.

        Args:
            arrivals: in the order they are sent.
            tell: told now and then, on this thread, how many answers there are.
        """
        self._began = time.monotonic()
        try:
            with ThreadPoolExecutor(self._concurrency, thread_name_prefix="demo") as pool:
                for arrival in arrivals:
                    self._wait_for(arrival, tell)
                    self._take_room(tell)
                    pool.submit(self._answer, arrival)
                for _ in range(self._concurrency):
                    self._take_room(tell)
        finally:
            tell(self.made)

    def _wait_for(self, arrival: Arrival, tell: Callable[[int], None]) -> None:
        """Wait until it is due; `late` keeps how much too late the latest one was."""
        if not self._speed:
            return
        due = self._began + arrival.at / self._speed
        while (wait := due - time.monotonic()) > 0:
            time.sleep(min(wait, LOOK_SECONDS))
            tell(self.made)
        self.late = max(self.late, -wait)

    def _take_room(self, tell: Callable[[int], None]) -> None:
        while not self._room.acquire(timeout=LOOK_SECONDS):
            tell(self.made)
        tell(self.made)
        if self._fault is not None:
            raise self._fault

    def _answer(self, arrival: Arrival) -> None:
        try:
            self._application.handle(request_for(arrival))
        except Exception as exc:  # noqa: BLE001 - it is raised where the arrivals are played
            self._fault = exc
        finally:
            with self._lock:
                self.made += 1
            self._room.release()
