"""Warnings that do not flood: the same one at most once a minute, with a count."""

import logging
import os
import threading
import time
import traceback

__all__ = ["logger", "stack_of", "warn"]

QUIET_SECONDS = 60.0

logger = logging.getLogger("flowledger")

_lock = threading.RLock()  # the garbage collector may end a call while we hold it


def _free_lock() -> None:
    """In a forked child: whoever held the lock at that moment is not there to let it go."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_free_lock)
_last: dict[str, tuple[float, int]] = {}


def warn(where: str, message: str, *arguments: object) -> None:
    """Log a warning under `flowledger.<where>` unless the same message was logged this minute.

    Args:
        where: the part of flowledger that warns, for example `journal`.
        message: a `logging` format; two warnings are the same when their formats are.
        arguments: what goes into the format. Never content of a call, never a key.
    """
    now = time.monotonic()
    with _lock:
        last, silenced = _last.get(message, (-QUIET_SECONDS, 0))
        if now - last < QUIET_SECONDS:
            _last[message] = (last, silenced + 1)
            return
        _last[message] = (now, 0)
    again = f" ({silenced} more times since)" if silenced else ""
    logging.getLogger(f"flowledger.{where}").warning(message + again, *arguments)


def stack_of(exc: BaseException) -> str:
    """Where an exception was raised, and its type: its message may quote a call."""
    return "".join(traceback.format_tb(exc.__traceback__)) + type(exc).__name__
