"""The text of rows as a database makes it by itself: what `store/leaves.py` makes in Python.

A database joins the rows of a record much faster than it hands them over one by one. Where its text
is another (rows in another order, a number printed in another way, a separator inside of a text)
the record is read row by row instead, so this only ever saves time.
"""

from typing import Any

from flowledger.store.leaves import KEPT, PRESENT, SEPARATOR, Kept
from flowledger.store.writers import Writer

__all__ = ["prepare", "texts_between"]

FLOATS = frozenset(
    (
        *("input_cost", "output_cost", "total_cost", "latency_ms"),
        *("time_to_first_token_ms", "audio_seconds", "cost_usd", "input_cost_usd"),
        *("output_cost_usd", "confidence", "template_match"),
    )
)
BOOLEANS = frozenset(("is_nan", "success", "model_call"))
METRICS = ("metrics", "latest_metrics")


def prepare(writer: Writer, cursor: Any) -> None:
    """Have PostgreSQL print floats with 15 significant digits."""
    if writer.mark == "%s":
        cursor.execute("SET extra_float_digits = 0")


def texts_between(
    writer: Writer, cursor: Any, table: str, first: str, last: str
) -> list[tuple[str, bytes]]:
    """The ids of records and the text of their rows in a table, from one id to another."""
    kept = KEPT[table]
    cursor.execute(_query(writer, table, kept), (kept.prefix + first, kept.prefix + last))
    cut = len(kept.prefix)
    if writer.mark == "?":
        return [(owner[cut:], text) for owner, text in cursor]
    return [(owner[cut:], text.encode()) for owner, text in cursor]


def _query(writer: Writer, table: str, kept: Kept) -> str:
    sqlite = writer.mark == "?"
    one = _row_of_sqlite(table, kept) if sqlite else _row_of_postgresql(kept)
    if not kept.keys:
        text, groups = f"'1{SEPARATOR}' || {one}", ""
    else:
        joined = "group_concat" if sqlite else "string_agg"
        text = f"count(*) || '{SEPARATOR}' || {joined}({one}, '{SEPARATOR}')"
        groups = f" GROUP BY {kept.owner}"
    if sqlite:  # its texts would be decoded only to be encoded again
        text = f"CAST({text} AS BLOB)"
    where = f"{kept.owner} BETWEEN {writer.mark} AND {writer.mark}"
    if table == "entity_associations":
        where += " AND source_type = 'trace'"
    return f"SELECT {kept.owner}, {text} FROM {table} WHERE {where}{groups}"


def _row_of_sqlite(table: str, kept: Kept) -> str:
    """Joined by `||`: `format` and its like end a text where a NUL is in it."""
    return f" || '{SEPARATOR}' || ".join(_cell_of_sqlite(table, name) for name in kept.cells)


def _cell_of_sqlite(table: str, name: str) -> str:
    value = name
    if name in FLOATS or (table in METRICS and name == "value"):
        # What is no number would be printed as one.
        value = f"iif(typeof({name}) = 'real', format('%.15g', {name}), {name})"
    return f"ifnull('{PRESENT}' || {value}, '')"


def _row_of_postgresql(kept: Kept) -> str:
    values = [f"{name}::int" if name in BOOLEANS else name for name in kept.cells]
    cells = ", ".join(f"COALESCE('{PRESENT}' || ({value})::text, '')" for value in values)
    return f"concat_ws('{SEPARATOR}', {cells})"
