"""Threads that do blocking work for the event loop."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flowledger.server.problems import busy, unavailable

__all__ = ["Crew"]

T = TypeVar("T")


class Crew:
    """Some threads, bounded in number, in what waits for them, and in patience.

    A database that hangs keeps a thread, never the worker: the client gets 503 after `seconds`, and
    429 while every place is taken. Work that was not begun by then is not done any more; work that
    was is finished, and nobody hears of it.

    Args:
        name: of the threads.
        threads: how many work at once.
        places: how many pieces of work may be under way or waiting.
        seconds: how long the caller waits for one.
    """

    def __init__(self, name: str, *, threads: int, places: int, seconds: float) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threading.Semaphore(places)
        self._seconds = seconds

    async def do(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises.

        Raises:
            HTTPException: 429 when no place is free, 503 when it takes too long.
        """
        if not self._places.acquire(blocking=False):
            raise busy("the server has as much to do as it takes on: send it again later")
        future = self._threads.submit(work)
        future.add_done_callback(lambda _: self._places.release())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            raise unavailable(
                f"the database did not answer within {self._seconds:g} seconds: nothing is promised"
                " of this request, send it again later"
            ) from None

    def close(self) -> None:
        """Begin nothing more, and do not wait for what hangs."""
        self._threads.shutdown(wait=False, cancel_futures=True)
