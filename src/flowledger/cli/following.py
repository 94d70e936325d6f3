"""`flowledger recent --follow`: calls printed as they are stored, until somebody leaves."""

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from flowledger.cli.reading import open_ledger
from flowledger.errors import NotFound, StoreUnavailable

if TYPE_CHECKING:
    from flowledger.questions import RecentCall
    from flowledger.questions.tail import Tail

__all__ = ["Output", "follow"]

T = TypeVar("T")
LOOK_EVERY_SECONDS = 0.5
LOOK_AGAIN_SECONDS = 2.0


class Output(Protocol):
    """Where calls are printed."""

    def first(self, calls: "list[RecentCall]") -> None:
        """Print those that were stored already, oldest first."""
        ...

    def another(self, call: "RecentCall") -> None:
        """Print one that was stored just now."""
        ...


def follow(uri: str, filters: dict[str, Any], limit: int, output: Output) -> None:
    """Print the latest calls, then each new one, until Ctrl-C or until nobody reads on.

    A database that is not there yet, or goes away for a while, is waited for.

    Args:
        uri: of the database.
        filters: which calls.
        limit: how many of those that are stored already.
        output: prints them.

    Raises:
        StoreMisconfigured: the URI names no database.
    """
    with suppress(KeyboardInterrupt, _NobodyReads):
        tail, calls = _patiently(lambda: _begin(uri, filters, limit))
        _print(output.first, calls[::-1])
        while True:
            _pause(LOOK_EVERY_SECONDS)
            for call in _patiently(tail.new):
                _print(output.another, call)


class _NobodyReads(Exception):
    """The reader of a pipe has gone."""


def _begin(uri: str, filters: dict[str, Any], limit: int) -> "tuple[Tail, list[RecentCall]]":
    ledger = open_ledger(uri)
    from flowledger.questions import Filters
    from flowledger.questions.tail import Tail

    tail = Tail(ledger.over(filters=Filters(**filters)))
    return tail, tail.latest(limit)


def _patiently(ask: Callable[[], T]) -> T:
    """What is answered once the database is there; why it is waited for is told once."""
    told = None
    while True:
        try:
            return ask()
        except (NotFound, StoreUnavailable) as exc:
            if str(exc) != told:
                told = str(exc)
                click.echo(f"flowledger: waiting: {told}", err=True)
            _pause(LOOK_AGAIN_SECONDS)


def _print(how: Callable[[T], None], what: T) -> None:
    try:
        how(what)
    except BrokenPipeError:
        # What is left in the buffer goes nowhere, instead of failing once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _NobodyReads from None


def _pause(seconds: float) -> None:
    """Wait, unless the reader of our output goes."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if poll.poll(seconds * 1000):
        raise _NobodyReads
