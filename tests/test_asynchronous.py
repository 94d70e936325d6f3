"""What a signal handler or another thread raises reaches the application; faults of ours do not."""

import ast
import ctypes
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import flowledger
from flowledger.asynchronous import is_asynchronous
from flowledger.testing import capture_calls

SOURCE = Path(flowledger.__file__).parent
# Rooms whose code runs in the application's own threads.
GUARDED = ("capture", "integrations", "chat", "privacy.py")
# The others raise it again themselves, or give it to a generator that does.
LETTING_THROUGH = {"reraise_asynchronous", "translated", "engine.failure", "method.throw"}


class TimeLimit(Exception):
    """The application's own."""


def plain(number: int, frame: FrameType | None) -> None:
    raise TimeLimit


def forgetful(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise TimeLimit


def replaced(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    raise TimeLimit


def of_any_arguments(*given: Any) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    raise TimeLimit


def built_in(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("too slow")


def deep(number: int, frame: FrameType | None) -> None:
    plain(number, None)


def with_more(more: str, number: int, frame: FrameType | None) -> None:
    raise TimeLimit(more)


class Handler:
    def method(self, number: int, frame: FrameType | None) -> None:
        del frame
        raise TimeLimit

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del frame
        raise TimeLimit


@pytest.fixture(autouse=True)
def _alarm_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, before)


HANDLERS: dict[str, Callable[..., None]] = {
    "a function": plain,
    "one that deletes its arguments": forgetful,
    "one that is in force no more": replaced,
    "one of any arguments": of_any_arguments,
    "one that raises what the system raises, too": built_in,
    "one that has another raise": deep,
    "a partial": functools.partial(with_more, "more"),
    "a method": Handler().method,
    "an object": Handler(),
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS.keys())
def test_what_a_signal_handler_raises_while_a_call_is_recorded_reaches_the_application(
    handler: Callable[..., None],
) -> None:
    signal.signal(signal.SIGALRM, handler)
    with capture_calls() as calls, pytest.raises((TimeLimit, TimeoutError)):
        flowledger.record(model="m", prompt=Interrupting())
    [call] = calls
    assert "while this call was recorded" in call.notes[0]


class Interrupting:
    """A signal arrives while this is read."""

    def __repr__(self) -> str:
        os.kill(os.getpid(), signal.SIGALRM)
        return "read"


@pytest.mark.parametrize("error", [TimeLimit, TimeoutError, ValueError])
def test_what_another_thread_sets_in_this_one_reaches_the_application(
    error: type[Exception],
) -> None:
    class Set:
        def __repr__(self) -> str:
            thread = ctypes.c_ulong(threading.get_ident())
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(error))
            return "read"

    with capture_calls(), pytest.raises(error):
        flowledger.record(model="m", prompt=Set())


def raise_nothing_said() -> None:
    raise TimeLimit


def take_what_is_not_there() -> None:
    os.environ["FLOWLEDGER_NOTHING"]


def end_an_iterator() -> None:
    next(iter(()))


def raise_where_the_caller_is_known() -> None:
    frame = __import__("sys")._getframe(1)
    raise TimeLimit(str(frame.f_lineno))


@pytest.mark.parametrize(
    "fault",
    [
        raise_nothing_said,
        take_what_is_not_there,
        end_an_iterator,
        raise_where_the_caller_is_known,
        functools.partial(open, "/no/such/file"),
        functools.partial(int, "one"),
    ],
)
def test_what_code_raises_by_itself_is_no_interruption(fault: Callable[[], object]) -> None:
    signal.signal(signal.SIGALRM, plain)
    with pytest.raises((TimeLimit, LookupError, StopIteration, OSError, ValueError)) as raised:
        fault()
    assert not is_asynchronous(raised.value)


def test_an_object_that_raises_when_it_is_read_stays_no_concern_of_the_application() -> None:
    class Raising:
        def __repr__(self) -> str:
            raise TimeLimit

    with capture_calls() as calls:
        flowledger.record(model="m", prompt=Raising())
    assert ["<Raising whose repr raises TimeLimit>"] == [call.prompt for call in calls]


def test_every_handler_of_any_fault_lets_interruptions_through() -> None:
    silent = [
        f"{path.relative_to(SOURCE)}:{handler.lineno}"
        for room in GUARDED
        for path in sorted((SOURCE / room).rglob("*.py") if "." not in room else [SOURCE / room])
        for handler in broad_handlers(path)
        if not lets_through(handler)
    ]
    assert [] == silent


def broad_handlers(path: Path) -> Iterator[ast.ExceptHandler]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and ast.unparse(node.type or node) == "Exception":
            yield node


def lets_through(handler: ast.ExceptHandler) -> bool:
    """Whether it calls `reraise_asynchronous`, or hands the exception on as it is."""
    named = {ast.unparse(node) for node in ast.walk(handler) if isinstance(node, ast.expr)}
    last = handler.body[-1]
    hands_on = isinstance(last, ast.Raise) and last.exc is None
    return hands_on or not named.isdisjoint(LETTING_THROUGH)
