"""Calls as JSON lines, CSV or Parquet: the same columns with the same names and types in each.

Times are UTC to the millisecond, money is US dollars as the floating-point number that is kept. An
unknown value is null, and in CSV an empty field without quotes; a text is always quoted there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Literal, Protocol

import msgspec

from flowledger.questions import content as content_of
from flowledger.questions.over import Over
from flowledger.questions.rows import EveryCall

__all__ = ["COLUMNS", "CONTENT", "FORMATS", "Writer", "columns", "values"]

Kind = Literal["text", "integer", "number", "flag", "time", "json", "any"]

# A spreadsheet takes a cell that begins so for a formula, and runs it.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
NEUTRAL = "'"
GROUP_ROWS, GROUP_BYTES = 20_000, 32 << 20

COLUMNS: dict[str, Kind] = {
    "id": "text",
    "started_at": "time",
    "received_at": "time",
    "experiment": "text",
    "feature": "text",
    "operation": "text",
    "kind": "text",
    "function": "text",
    "provider": "text",
    "model": "text",
    "model_asked": "text",
    "user_id": "text",
    "session_id": "text",
    "persona_id": "text",
    "user_role": "text",
    "audit_reason": "text",
    "environment": "text",
    "success": "flag",
    "error_type": "text",
    "error_message": "text",
    "latency_ms": "number",
    "time_to_first_token_ms": "number",
    "input_tokens": "integer",
    "output_tokens": "integer",
    "total_tokens": "integer",
    "cached_input_tokens": "integer",
    "cache_write_tokens": "integer",
    "cache_write_1h_tokens": "integer",
    "reasoning_tokens": "integer",
    "input_audio_tokens": "integer",
    "output_audio_tokens": "integer",
    "input_image_tokens": "integer",
    "images": "integer",
    "audio_seconds": "number",
    "input_characters": "integer",
    "usage_source": "text",
    "cost_usd": "number",
    "input_cost_usd": "number",
    "output_cost_usd": "number",
    "cost_source": "text",
    "prompt_name": "text",
    "prompt_version": "text",
    "prompt_hash": "text",
    "parent_id": "text",
    "inner_calls": "integer",
    "producer_id": "text",
    "seq": "integer",
    "settings": "json",
    "params": "json",
    "metrics": "json",
    "tags": "json",
    "notes": "json",
    "unknown": "json",
}
CONTENT: dict[str, Kind] = {
    "prompt": "any",
    "response": "any",
    "tool_calls": "any",
    "stack": "text",
}
DETAILS = ("settings", "params", "metrics", "tags", "notes", "unknown")
TIMES = {"started_at": "start_ms", "received_at": "received_ms"}


class Writer(Protocol):
    """Writes rows of values in the order of the columns."""

    def write(self, row: Sequence[Any]) -> None:
        """Write one row."""
        ...

    def close(self) -> None:
        """Write what is still held back; the file stays open."""
        ...


def columns(*, content: bool) -> dict[str, Kind]:
    """The name and the kind of every column, in order."""
    return COLUMNS | CONTENT if content else COLUMNS


def values(over: Over, *, content: bool, text: str | None = None) -> Iterator[tuple[Any, ...]]:
    """The calls of a window as values in the order of the columns: times in Unix milliseconds.

    Values of kind `json` are JSON texts, those of kind `any` what they stand for.

    Args:
        over: the window.
        content: with prompts and responses.
        text: only calls with this text in them.

    Raises:
        QuestionError: the text is empty or too long.
    """
    for call in over.every(content=content, text=text):
        found = {name: getattr(call, name, None) for name in COLUMNS}
        found |= {name: getattr(call, field) for name, field in TIMES.items()}
        found["experiment"] = over.experiment(call.experiment_id)
        details = msgspec.json.decode(call.details, type=dict[str, msgspec.Raw])
        found |= {name: _text(details.get(name)) for name in DETAILS}
        yield (*found.values(), *(_content(call) if content else ()))


def _text(raw: msgspec.Raw | None) -> str | None:
    return None if raw is None else bytes(raw).decode()


def _content(call: EveryCall) -> tuple[Any, ...]:
    if call.content is not None:
        found = content_of.of_ledger(call.content)
    elif call.span is not None:
        found = content_of.of_span(call.span)
    else:
        return (None,) * len(CONTENT)
    return (found.prompt, found.response, found.tool_calls or None, found.stack)


class JsonLines:
    """One JSON object a line, with every column."""

    def __init__(self, file: IO[bytes], columns: dict[str, Kind]) -> None:
        self._file = file
        self._columns = columns
        self._encoder = msgspec.json.Encoder()

    def write(self, row: Sequence[Any]) -> None:
        """Write one line."""
        pairs = zip(self._columns.items(), row, strict=True)
        line = {name: _as_json(kind, value) for (name, kind), value in pairs}
        self._file.write(self._encoder.encode(line) + b"\n")

    def close(self) -> None:
        """Nothing is held back."""


class Csv:
    """Comma-separated values in UTF-8, with a line of names.

    A text that a spreadsheet would take for a formula, or that begins with an apostrophe, has an
    apostrophe before it: taking one away gives the text back.
    """

    def __init__(self, file: IO[bytes], columns: dict[str, Kind]) -> None:
        self._file = file
        self._kinds = list(columns.values())
        self._line(columns)

    def write(self, row: Sequence[Any]) -> None:
        """Write one record; a text may have several lines."""
        self._line(_as_csv(kind, value) for kind, value in zip(self._kinds, row, strict=True))

    def close(self) -> None:
        """Nothing is held back."""

    def _line(self, fields: Iterable[str]) -> None:
        self._file.write((",".join(fields) + "\n").encode())


class Parquet:
    """Parquet, in row groups of bounded size."""

    def __init__(self, file: IO[bytes], columns: dict[str, Kind]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        types = {
            "integer": pa.int64(),
            "number": pa.float64(),
            "flag": pa.bool_(),
            "time": pa.timestamp("ms", tz="UTC"),
        }
        self._arrow = pa
        self._kinds = list(columns.values())
        self._schema = pa.schema(
            [(name, types.get(kind, pa.string())) for name, kind in columns.items()]
        )
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []
        self._bytes = 0

    def write(self, row: Sequence[Any]) -> None:
        """Keep one row until there is a group of them."""
        cells = tuple(_as_cell(kind, value) for kind, value in zip(self._kinds, row, strict=True))
        self._rows.append(cells)
        self._bytes += sum(len(cell) for cell in cells if isinstance(cell, str))
        if len(self._rows) == GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the last group and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            pairs = zip(zip(*self._rows, strict=True), self._schema.types, strict=True)
            arrays = [self._arrow.array(list(cells), kind) for cells, kind in pairs]
            self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows, self._bytes = [], 0


FORMATS: dict[str, Callable[[IO[bytes], dict[str, Kind]], Writer]] = {
    "jsonl": JsonLines,
    "csv": Csv,
    "parquet": Parquet,
}


def _as_json(kind: Kind, value: Any) -> Any:
    if value is None or kind not in ("time", "json"):
        return value
    return _iso(value) if kind == "time" else msgspec.Raw(value.encode())


def _as_csv(kind: Kind, value: Any) -> str:
    if value is None:
        return ""
    if kind == "time":
        return _iso(value)
    if kind == "flag":
        return "true" if value else "false"
    if kind in ("integer", "number"):
        return repr(value)
    text = _as_cell(kind, value)
    neutral = NEUTRAL if text.startswith((*FORMULA, NEUTRAL)) else ""
    doubled = text.replace('"', '""')
    return f'"{neutral}{doubled}"'


def _as_cell(kind: Kind, value: Any) -> Any:
    """A value as a cell holds it: a text as it is, anything nested as JSON."""
    if kind != "any" or value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _iso(unix_ms: int) -> str:
    moment = datetime.fromtimestamp(unix_ms // 1000, UTC) + timedelta(milliseconds=unix_ms % 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
