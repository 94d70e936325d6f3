"""Calls as a file, piece by piece: as many as there are, never more than one piece in memory."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from flowledger.dashboard.asking import May
from flowledger.dashboard.view import View
from flowledger.questions import Ledger
from flowledger.questions.rows import RecentCall
from flowledger.questions.tracking import time_text

__all__ = ["Lines", "csv_lines", "json_lines", "rows_of"]

PIECE = 5000
COLUMNS = ("start", *(name for name in RecentCall.__struct_fields__ if name != "start_ms"))
FORMULA = ("=", "+", "-", "@", "\t", "\r")

Lines = Callable[[Sequence[RecentCall], bool], bytes]


def rows_of(
    ledger: Ledger, may: May, view: View, page: str | None
) -> tuple[list[RecentCall], str | None]:
    """The next calls, newest first, and the token of what comes after them."""
    over = view.over(ledger, may)
    found = over.calls(PIECE, page) if view.q is None else over.search(view.q, PIECE, page)
    return found.rows, found.next


def csv_lines(rows: Sequence[RecentCall], with_head: bool) -> bytes:
    """The calls as CSV; a text that a spreadsheet would take for a formula begins with `'`."""
    text = io.StringIO()
    writer = csv.writer(text)
    if with_head:
        writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(map(_cell, _fields(row).values()))
    return text.getvalue().encode()


def json_lines(rows: Sequence[RecentCall], with_head: bool) -> bytes:
    """The calls as JSON, each on a line of its own."""
    return msgspec.json.Encoder().encode_lines([_fields(row) for row in rows])


def _fields(row: RecentCall) -> dict[str, Any]:
    fields = msgspec.structs.asdict(row)
    return {"start": time_text(fields.pop("start_ms")), **fields}


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value
