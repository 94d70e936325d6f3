"""How far a replay got: a bar on a terminal, a few plain lines anywhere else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from flowledger.cli.text import on_terminal

__all__ = ["progress"]

LINES = 4
LINE_EVERY = 1_000


@contextmanager
def progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """Gives a function to be told how many are done; `total` is None when nobody knows."""
    if not on_terminal():
        yield _Lines(total).tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("calls"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as shown:
        bar = shown.add_task("calls", total=total)
        yield lambda done: shown.update(bar, completed=done)


class _Lines:
    """A line at each quarter, or every thousand where the total is not known."""

    def __init__(self, total: int | None) -> None:
        self._of = "" if total is None else f" of {total:,}"
        self._every = LINE_EVERY if total is None else max(1, -(-total // LINES))
        self._total = total
        self._said = 0

    def tell(self, done: int) -> None:
        """Say it when another step is reached, or the end."""
        reached = done if done == self._total else done - done % self._every
        if reached > self._said:
            self._said = reached
            click.echo(f"  {reached:,}{self._of} calls")
