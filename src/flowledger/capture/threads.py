"""Carrying our context into new threads, as Python itself does from 3.14 on when asked to.

A worker thread that answers for a request must name that request's user, and `threading` starts
every thread with an empty context. Only flowledger's own variable is carried, nothing of others.

A thread that outlives the request must not go on naming its user. So what is submitted to a thread
pool carries the context of its submission, whoever's request happened to start the pool's thread;
and daemon threads, which serve in the background, start with none unless `carry` says so.
"""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from flowledger.capture.context import EMPTY, carried

__all__ = ["carry", "carry_into_threads"]

P = ParamSpec("P")
R = TypeVar("R")


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """The function, running with the context in force now, in whatever thread it is called."""
    context = carried.get()

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        token = carried.set(context)
        try:
            return function(*args, **kwargs)
        finally:
            carried.reset(token)

    return run


def carry_into_threads() -> None:
    """From now on threads and thread pools start work with the context of who started it."""
    if getattr(threading.Thread.start, "carries_flowledger", False):
        return
    start = threading.Thread.start
    submit = ThreadPoolExecutor.submit

    @functools.wraps(start)
    def start_carrying(self: threading.Thread) -> None:
        if carried.get() is not EMPTY and not self.daemon:
            self.run = carry(self.run)  # type: ignore[method-assign]
        start(self)

    def submit_carrying(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        return submit(self, carry(fn), *args, **kwargs)

    start_carrying.carries_flowledger = True  # type: ignore[attr-defined]
    threading.Thread.start = start_carrying  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = functools.wraps(submit)(submit_carrying)  # type: ignore
