"""Telling the application's own interruptions from faults of ours.

A signal handler (an alarm, Celery's soft time limit, Ctrl-C) and `PyThreadState_SetAsyncExc` raise
an exception in whatever code runs at that moment. When that is ours, the exception is still the
application's and must reach it, although it looks like a fault of the line it came out of.
"""

import opcode
import signal
from collections.abc import Iterator
from types import CodeType, FrameType, MethodType, TracebackType
from typing import Any

__all__ = ["is_asynchronous", "reraise_asynchronous"]

CO_VARARGS = 0x04  # of `inspect`, which an application need not load for it
RAISING = (opcode.opmap["RAISE_VARARGS"], opcode.opmap["RERAISE"])
RAISED_WITHOUT_ARGUMENTS = (MemoryError, StopIteration, StopAsyncIteration)


def reraise_asynchronous(exc: BaseException) -> None:
    """Raise this exception again if it came from a signal handler or another thread.

    The first line of every handler that keeps faults of ours away from the application.
    """
    if is_asynchronous(exc):
        raise exc


def is_asynchronous(exc: BaseException) -> bool:
    """Whether a signal handler or another thread raised this, and not the code that ran."""
    entries = list(_entries(exc.__traceback__))
    handlers = _handler_codes()
    interrupted: FrameType | None = None
    for entry in entries:
        if entry.tb_frame.f_code in handlers or _was_given(entry.tb_frame, interrupted):
            return True
        interrupted = entry.tb_frame
    return bool(entries) and _came_out_of_nothing(exc, entries[-1])


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _handler_codes() -> set[CodeType]:
    """The code of every signal handler in force."""
    handlers = (signal.getsignal(number) for number in signal.valid_signals())
    return {code for handler in handlers if (code := _code_of(handler)) is not None}


def _code_of(handler: Any) -> CodeType | None:
    handler = getattr(handler, "func", handler)  # of a `functools.partial`
    if not isinstance(handler, MethodType) and not hasattr(handler, "__code__"):
        handler = getattr(handler, "__call__", None)  # noqa: B004 - the method itself is wanted
    code = getattr(getattr(handler, "__func__", handler), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _was_given(frame: FrameType, interrupted: FrameType | None) -> bool:
    """Whether a function got its caller's frame as an argument, as only signal handlers do.

    A handler that puts another in its own place before it raises is known by this alone.
    """
    if interrupted is None:
        return False
    code = frame.f_code
    count = code.co_argcount + bool(code.co_flags & CO_VARARGS)
    for name in code.co_varnames[:count]:
        value = frame.f_locals.get(name)
        if value is interrupted or (type(value) is tuple and any(v is interrupted for v in value)):
            return True
    return False


def _came_out_of_nothing(exc: BaseException, last: TracebackType) -> bool:
    """Whether no statement raised it, and it carries nothing: so another thread set it.

    `PyThreadState_SetAsyncExc` takes a class and calls it without arguments; what C code raises
    carries a message.
    """
    if exc.args or isinstance(exc, RAISED_WITHOUT_ARGUMENTS):
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] not in RAISING
