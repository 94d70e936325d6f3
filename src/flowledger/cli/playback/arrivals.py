"""Reading a trace of LLM arrivals: CSV with TIMESTAMP, ContextTokens and GeneratedTokens.

The format of the Azure LLM inference traces. A file is read line by line and never held whole.
Lines that begin with `#` before the header are comments.
"""

import csv
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from flowledger.errors import ConfigError

__all__ = ["SAMPLE", "Arrival", "arrivals_in", "check"]

SAMPLE = Path(__file__).parent.parent / "azure_sample.csv"
COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
LONGEST_LINE = 1000
MOST_TOKENS = 10_000_000
CHECKED_BYTES = 64 << 20
CHECKED_LINES = 100


class Arrival(NamedTuple):
    """A request of the trace: its place, seconds after the first, and its tokens."""

    number: int
    at: float
    context_tokens: int
    generated_tokens: int


class _Line(NamedTuple):
    """A line's number in its file, for the message when something is wrong with it, and cells."""

    number: int
    cells: list[str]


def arrivals_in(path: Path, limit: int | None = None) -> Iterator[Arrival]:
    """The arrivals of a trace in the file's order, the first `limit` of them.

    Raises:
        ConfigError: the file is no such trace; the message names the line.
    """
    try:
        with path.open("rb") as file:
            yield from islice(_arrivals(file, path.name), limit)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}") from exc


def check(path: Path, limit: int | None = None) -> int | None:
    """How many arrivals there are, after a look at each of them.

    Of a file over 64 MiB only the first 100 are looked at, and the number is None.

    Raises:
        ConfigError: as `arrivals_in`, or there is no arrival at all.
    """
    large = os.path.getsize(path) > CHECKED_BYTES
    first = min(limit or CHECKED_LINES, CHECKED_LINES) if large else limit
    found = sum(1 for _ in arrivals_in(path, first))
    if not found:
        raise ConfigError(f"{path.name} has no arrivals: there is no line after its header")
    return limit if large else found


def _arrivals(file: BinaryIO, name: str) -> Iterator[Arrival]:
    lines = _lines(file, name)
    header = next(lines, None)
    if header is None:
        raise ConfigError(f"{name} is empty: its first line must be {','.join(COLUMNS)}")
    places = _places(header, name)
    first: datetime | None = None
    for number, line in zip(count(), lines):
        moment, context, generated = _values(line, places, name)
        first = first or moment
        yield Arrival(number, (moment - first).total_seconds(), context, generated)


def _lines(file: BinaryIO, name: str) -> Iterator[_Line]:
    """Every line with something on it, after the comments at the start."""
    header_seen = False
    for number in count(1):
        line = file.readline(LONGEST_LINE + 1)
        if not line:
            return
        if len(line) > LONGEST_LINE:
            raise ConfigError(f"{name}, line {number}: longer than {LONGEST_LINE} bytes")
        if line.strip() and (header_seen or not line.startswith(b"#")):
            header_seen = True
            yield _Line(number, _cells(line, name, number))


def _cells(line: bytes, name: str, number: int) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line.decode("utf-8-sig")]))]
    except (UnicodeDecodeError, csv.Error, StopIteration) as exc:
        raise ConfigError(f"{name}, line {number}: this is no CSV text ({exc})") from exc


def _places(header: _Line, name: str) -> list[int]:
    missing = [column for column in COLUMNS if column not in header.cells]
    if missing:
        raise ConfigError(
            f"{name}, line {header.number}: the column {missing[0]} is missing; the header must "
            f"name {', '.join(COLUMNS)}"
        )
    return [header.cells.index(column) for column in COLUMNS]


def _values(line: _Line, places: list[int], name: str) -> tuple[datetime, int, int]:
    where = f"{name}, line {line.number}"
    if len(line.cells) <= max(places):
        raise ConfigError(f"{where}: it has {len(line.cells)} cells, fewer than its header")
    moment, context, generated = (line.cells[place] for place in places)
    return _moment(moment, where), _tokens(context, where, 1), _tokens(generated, where, 2)


def _moment(text: str, where: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigError(
            f"{where}: TIMESTAMP is {text[:50]!r}, and must be like 2023-11-16 18:15:46.680"
        ) from exc
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _tokens(text: str, where: str, column: int) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MOST_TOKENS:
        return int(text)
    raise ConfigError(
        f"{where}: {COLUMNS[column]} is {text[:50]!r}, and must be a whole number from 0 to "
        f"{MOST_TOKENS:,}"
    )
