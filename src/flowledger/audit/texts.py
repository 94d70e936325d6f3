"""The text of rows as a database makes it by itself: what `store/leaves.py` makes in Python.

A database joins the rows of a record much faster than it hands them over one by one. Where its text
is another (rows in another order, a number printed in another way, a separator inside of a text)
the record is read row by row instead, so this only ever saves time.
"""

from collections.abc import Iterator
from typing import Any

from flowledger.store.leaves import KEPT, Kept
from flowledger.store.writers import Writer

__all__ = ["prepare", "texts_between"]

FLOATS = frozenset(
    (
        *("value", "input_cost", "output_cost", "total_cost", "latency_ms"),
        *("time_to_first_token_ms", "audio_seconds", "cost_usd", "input_cost_usd"),
        *("output_cost_usd", "confidence", "template_match"),
    )
)
BOOLEANS = frozenset(("is_nan", "success"))
NUMBERED = ("metrics", "latest_metrics", "trace_info", "spans", "llm_calls")


def prepare(writer: Writer, cursor: Any) -> None:
    """Have the database print floats with 15 significant digits."""
    if writer.mark == "%s":
        cursor.execute("SET extra_float_digits = 0")


def texts_between(
    writer: Writer, cursor: Any, table: str, first: str, last: str
) -> Iterator[tuple[str, bytes]]:
    """The ids of records and the text of their rows in a table, from one id to another."""
    kept = KEPT[table]
    cursor.execute(_query(writer, table, kept), (kept.prefix + first, kept.prefix + last))
    cut = len(kept.prefix)
    for owner, text in cursor:
        yield owner[cut:], text if isinstance(text, bytes) else text.encode()


def _query(writer: Writer, table: str, kept: Kept) -> str:
    sqlite = writer.mark == "?"
    separator = "char(31)" if sqlite else "chr(31)"
    one = f" || {separator} || ".join(_cell(table, name, sqlite) for name in kept.cells)
    where = f"{kept.owner} BETWEEN {writer.mark} AND {writer.mark}"
    if table == "entity_associations":
        where += " AND source_type = 'trace'"
    if not kept.keys:
        text = _bytes(f"1 || {separator} || {one}", sqlite)
        return f"SELECT {kept.owner}, {text} FROM {table} WHERE {where}"
    joined = f"group_concat({one}, {separator})" if sqlite else f"string_agg({one}, {separator})"
    text = _bytes(f"count(*) || {separator} || {joined}", sqlite)
    return f"SELECT {kept.owner}, {text} FROM {table} WHERE {where} GROUP BY {kept.owner}"


def _bytes(text: str, sqlite: bool) -> str:
    """SQLite's texts would be decoded only to be encoded again."""
    return f"CAST({text} AS BLOB)" if sqlite else text


def _cell(table: str, name: str, sqlite: bool) -> str:
    nothing = "char(30)" if sqlite else "chr(30)"
    is_float = name in FLOATS and table in NUMBERED
    if not sqlite:
        value = f"{name}::int" if name in BOOLEANS else name
        return f"COALESCE(({value})::text, {nothing})"
    if is_float:
        whole = f"{name} = CAST({name} AS INTEGER) AND abs({name}) < 1e15"
        text = f"CASE WHEN {whole} THEN CAST({name} AS INTEGER) ELSE printf('%.15g', {name}) END"
        return f"CASE WHEN {name} IS NULL THEN {nothing} ELSE {text} END"
    return f"ifnull({name}, {nothing})"
