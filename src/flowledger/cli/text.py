"""How the command line writes numbers, moments, texts and tables.

On a terminal a table has lines and fits the window. Anywhere else it is plain text in columns, with
nothing cut, for `grep`, files and screen readers.
"""

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import click
import msgspec

__all__ = [
    "Column",
    "Lines",
    "duration",
    "iso",
    "json_text",
    "moment",
    "money",
    "number",
    "on_terminal",
    "print_json",
    "print_json_line",
    "print_table",
    "print_text",
    "printable",
    "size",
]

GAP = "  "
UNKNOWN = "?"
# Control characters other than tab and newline: what a model wrote must not steer a terminal.
_control = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
BAR, PLAIN_BAR = "\u2588", "#"
BAR_WIDTH = 20
LEAST_BAR = 8


class Column(NamedTuple):
    """A table's column; where a terminal is too narrow the highest `leaves` is left out first.

    The cells of a `bar` are numbers from 0 to 1, drawn over the width that other columns leave.
    """

    title: str
    right: bool = False
    leaves: int = 0
    bar: bool = False


def on_terminal() -> bool:
    """Whether somebody watches the standard output."""
    return sys.stdout.isatty()


def printable(text: str) -> str:
    """The text with control characters spelled out."""
    return _control.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def number(value: int | None) -> str:
    """A count, `?` when it is unknown."""
    return UNKNOWN if value is None else f"{value:,}"


def money(usd: float | None) -> str:
    """US dollars: cents for amounts, more places for the price of a single call."""
    if usd is None:
        return UNKNOWN
    if usd == 0 or usd >= 100:
        return f"${usd:,.2f}"
    return f"${usd:.4f}" if usd >= 0.01 else f"${usd:.6f}" if usd >= 1e-4 else f"${usd:.8f}"


def duration(milliseconds: float | None) -> str:
    """A latency in the unit it is read best in."""
    if milliseconds is None:
        return UNKNOWN
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds:,.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:,.1f} s"


def moment(unix_ms: int) -> str:
    """A moment in UTC, to the second."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def iso(unix_ms: int) -> str:
    """A moment as ISO 8601 in UTC, to the millisecond."""
    found = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def size(count: int) -> str:
    """A number of bytes in the unit it is read best in."""
    if count < 1024:
        return f"{count} bytes"
    value, unit = count / 1024, "KiB"
    for larger in ("MiB", "GiB"):
        if value >= 1024:
            value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"


def json_text(value: Any) -> str:
    """A value as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json_text(value))


def print_text(text: str) -> None:
    """A paragraph, with its lines broken between words on a terminal."""
    shown = printable(text)
    width = shutil.get_terminal_size().columns
    click.echo(textwrap.fill(shown, width) if on_terminal() else shown)


def print_json_line(value: Any) -> None:
    """A value as JSON on one line."""
    click.echo(msgspec.json.encode(value))


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Rows under their titles; the cells are text."""
    cells = [[_cell(text) for text in row] for row in rows]
    if on_terminal():
        _print_for_people(columns, cells)
    else:
        _print_plainly(columns, _with_bars(columns, cells, BAR_WIDTH, PLAIN_BAR))


class Lines:
    """A table that grows: each row is printed as it comes, under titles printed once.

    Args:
        columns: of the table.
        rows: some rows to take the widths from; later ones may be wider.
    """

    def __init__(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        first = list(rows)
        self._columns = columns
        self._widths = _widths(columns, [[_cell(text) for text in row] for row in first])
        self._kept = list(range(len(columns)))
        if on_terminal():
            self._kept = _fitting(columns, self._widths, shutil.get_terminal_size().columns)
        self.print([column.title for column in columns])
        for row in first:
            self.print(row)

    def print(self, row: Sequence[str]) -> None:
        """Print one more row."""
        cells = [_cell(row[place]) for place in self._kept]
        for place, cell in zip(self._kept, cells, strict=True):
            self._widths[place] = max(self._widths[place], len(cell))
        columns = [self._columns[place] for place in self._kept]
        click.echo(_line(columns, cells, [self._widths[place] for place in self._kept]))


def _cell(text: str) -> str:
    """The text on one line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _print_for_people(columns: Sequence[Column], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    widths = _widths(columns, rows)
    kept = _fitting(columns, widths, console.width)
    fits = sum(widths[place] + len(GAP) for place in kept) <= console.width + len(GAP)
    others = sum(widths[place] + len(GAP) for place in kept if not columns[place].bar)
    blocks = BAR if console.encoding.startswith("utf") else PLAIN_BAR
    rows = _with_bars(columns, rows, max(LEAST_BAR, console.width - others), blocks)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place in kept:
        justify: Literal["left", "right"] = "right" if columns[place].right else "left"
        title = columns[place].title
        table.add_column(title, justify=justify, no_wrap=fits, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[place]) for place in kept))
    console.print(table)


def _fitting(columns: Sequence[Column], widths: Sequence[int], room: int) -> list[int]:
    """The places of the columns that fit beside each other."""
    kept = list(range(len(columns)))
    while sum(widths[place] + len(GAP) for place in kept) > room + len(GAP):
        last = max(kept, key=lambda place: columns[place].leaves)
        if not columns[last].leaves:
            break
        kept.remove(last)
    return kept


def _with_bars(
    columns: Sequence[Column], rows: list[list[str]], width: int, block: str
) -> list[list[str]]:
    """The rows with bars for shares; the smallest share that is any is seen."""
    return [
        [
            block * max(float(cell) > 0, round(float(cell) * width)) if column.bar else cell
            for column, cell in zip(columns, row, strict=True)
        ]
        for row in rows
    ]


def _widths(columns: Sequence[Column], rows: list[list[str]]) -> list[int]:
    table = zip([column.title for column in columns], *rows, strict=True)
    return [
        LEAST_BAR if column.bar else max(map(len, cells))
        for column, cells in zip(columns, table, strict=True)
    ]


def _print_plainly(columns: Sequence[Column], rows: list[list[str]]) -> None:
    titles = [column.title for column in columns]
    widths = [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        click.echo(_line(columns, row, widths))


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.rjust(width) if column.right else cell.ljust(width)
        for cell, width, column in zip(cells, widths, columns, strict=True)
    )
    return GAP.join(padded).rstrip()
