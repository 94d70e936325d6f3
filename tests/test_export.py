"""`flowledger export`: every call of a window, the same rows in every format."""

import csv
import gc
import io
import json
import threading
import tracemalloc
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowledger.cli import main
from flowledger.config import Destination
from flowledger.questions import Ledger
from flowledger.questions.export import COLUMNS, CONTENT, FORMATS, FORMULA, columns, values
from flowledger.records import Actor, Call, Outcome, ToolCall, encode
from flowledger.store import open_sink
from tests.calls import NOW_NS, a_call

DAY_NS = 86_400 * 10**9
ALL = columns(content=True)


def store(uri: str, *calls: Call, store_as: str = "run+trace") -> None:
    sink = open_sink(Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as=store_as))
    assert [] == sink.write(list(map(encode, calls)))
    sink.close()


def export(uri: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["export", *words], env={"FLOWLEDGER_TRACKING_URI": uri})


def of_time(value: Any) -> int | None:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return None if value is None else round(value.timestamp() * 1000)


def read_jsonl(data: bytes) -> list[dict[str, Any]]:
    return [
        {name: of_time(value) if ALL[name] == "time" else value for name, value in row.items()}
        for row in map(json.loads, data.split(b"\n")[:-1])
    ]


def read_csv(data: bytes) -> list[dict[str, Any]]:
    """By Python's own reader, which knows a quoted empty field from one without quotes by us."""
    rows = csv.DictReader(io.StringIO(data.decode(), newline=""))
    return [{name: csv_value(ALL[name], value) for name, value in row.items()} for row in rows]


def csv_value(kind: str, text: str) -> Any:
    if kind in ("text", "json", "any"):
        return text.removeprefix("'") if text else None
    if not text:
        return None
    if kind == "time":
        return of_time(text)
    return text == "true" if kind == "flag" else int(text) if kind == "integer" else float(text)


def read_parquet(data: bytes) -> list[dict[str, Any]]:
    rows = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    return [
        {name: of_time(value) if ALL[name] == "time" else value for name, value in row.items()}
        for row in rows
    ]


def written(form: str, rows: list[tuple[Any, ...]]) -> bytes:
    file = io.BytesIO()
    writer = FORMATS[form](file, ALL)
    for row in rows:
        writer.write(row)
    writer.close()
    return file.getvalue()


texts = st.none() | st.text(max_size=20).filter(lambda text: "\0" not in text)
odd_texts = texts | st.sampled_from(
    ["=1+1", "-5", "'", "'=x", '"', "a,b", "x\r\ny", "\ttab", "+", "@"]
)
integers = st.none() | st.integers(0, 2**63 - 1)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
flags = st.booleans()
moments = st.integers(0, 4_000_000_000_000)
json_texts = st.none() | st.dictionaries(st.text(max_size=5), st.integers(), min_size=1).map(
    lambda value: json.dumps(value)
)
OF_KIND = {
    "text": odd_texts,
    "integer": integers,
    "number": numbers,
    "flag": flags,
    "time": moments,
    "json": json_texts,
    "any": odd_texts | st.lists(st.text(max_size=5), min_size=1),
}
any_row = st.tuples(*(OF_KIND[kind] for kind in ALL.values()))


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(rows=st.lists(any_row, max_size=3))
def test_what_is_read_again_is_what_was_written(rows: list[tuple[Any, ...]]) -> None:
    named = [dict(zip(ALL, row, strict=True)) for row in rows]
    native = [
        {n: json.loads(v) if ALL[n] == "json" and v else v for n, v in row.items()} for row in named
    ]
    as_text = [
        {
            n: json.dumps(v, ensure_ascii=False, separators=(",", ":"))
            if isinstance(v, list)
            else v
            for n, v in row.items()
        }
        for row in named
    ]
    # Python's csv tells an empty text and none apart by quotes only, which its reader drops.
    without_empty = [{n: None if v == "" else v for n, v in row.items()} for row in as_text]
    assert native == read_jsonl(written("jsonl", rows))
    assert as_text == read_parquet(written("parquet", rows))
    assert without_empty == read_csv(written("csv", rows))


def test_an_empty_text_is_quoted_in_csv_and_an_unknown_one_is_not() -> None:
    row = [None] * len(ALL)
    row[0] = ""  # type: ignore[call-overload]
    assert ['"",' + "," * (len(ALL) - 2), ""] == written("csv", [tuple(row)]).decode().split("\n")[
        1:
    ]


@given(text=st.text(max_size=20))
def test_no_field_of_csv_is_a_formula(text: str) -> None:
    row: list[Any] = [None] * len(ALL)
    for place in (0, len(ALL) - 1):
        row[place] = text
    for start in FORMULA:
        row[3] = start + text
        line = written("csv", [tuple(row)]).decode()
        fields = next(iter(list(csv.reader(io.StringIO(line, newline="")))[1:]))
        assert not any(field.startswith(FORMULA) for field in fields)


def test_every_format_has_every_call_with_the_same_columns(home: Path, database_uri: str) -> None:
    calls = [
        a_call(
            start_ns=NOW_NS - place * DAY_NS,
            prompt=[{"role": "user", "content": "=cmd()"}],
            response="=cmd()\n\u00e9",
            tool_calls=[ToolCall(name="look_up", arguments="{}")],
            tags={"team": "shop"},
            actor=Actor(user_id="=ana"),
        )
        for place in range(3)
    ]
    failed = a_call(outcome=Outcome(success=False, error_type="E", message="m", stack="s"))
    grouping = a_call(inner_calls=1)
    store(database_uri, *calls, failed)
    store(database_uri, grouping, store_as="ledger")
    expected = sorted(call.id for call in (*calls, failed, grouping))
    files = {}
    for form in FORMATS:
        path = home.parent / f"calls.{form}"
        told = export(database_uri, "--content", "--output", str(path))
        assert (0, "", f"exported 5 calls to {path}\n") == (
            told.exit_code,
            told.stdout,
            told.stderr,
        )
        files[form] = path.read_bytes()
    rows = read_jsonl(files["jsonl"])
    assert expected == sorted(row["id"] for row in rows)
    assert list(ALL) == list(rows[0])
    one = {row["id"]: row for row in rows}[calls[2].id]
    assert (calls[2].prompt, "=cmd()\n\u00e9", "support", {"team": "shop"}, "=ana") == (
        one["prompt"],
        one["response"],
        one["experiment"],
        one["tags"],
        one["user_id"],
    )
    assert [row["id"] for row in rows] == [
        row["id"] for row in sorted(rows, key=lambda r: (r["started_at"], r["id"]))
    ]
    compact = [
        {
            n: json.dumps(v, ensure_ascii=False, separators=(",", ":"))
            if isinstance(v, dict | list)
            else v
            for n, v in row.items()
        }
        for row in rows
    ]
    assert compact == read_parquet(files["parquet"]) == read_csv(files["csv"])


def test_a_window_and_filters_leave_the_calls_they_name(home: Path, sqlite_uri: str) -> None:
    new, old, other = a_call(), a_call(start_ns=NOW_NS - 9 * DAY_NS), a_call(feature="other")
    store(sqlite_uri, new, old, other, store_as="ledger")
    told = export(sqlite_uri, "--days", "1", "--feature", "support")
    assert (0, "exported 1 calls\n") == (told.exit_code, told.stderr)
    assert [new.id] == [json.loads(line)["id"] for line in told.stdout.splitlines()]
    assert list(COLUMNS) == list(json.loads(told.stdout))
    assert not CONTENT.keys() & json.loads(told.stdout).keys()


def test_no_calls_are_a_file_without_rows(home: Path, sqlite_uri: str) -> None:
    store(sqlite_uri, a_call(), store_as="ledger")
    told = export(sqlite_uri, "--format", "csv", "--to", "2020-01-01")
    assert (0, ",".join(COLUMNS) + "\n") == (told.exit_code, told.stdout)


def test_an_export_that_fails_leaves_what_was_there(home: Path, sqlite_uri: str) -> None:
    path = home.parent / "calls.jsonl"
    path.write_text("before")
    told = export("sqlite:///nothing.db", "-o", str(path))
    assert (1, "before") == (told.exit_code, path.read_text())
    store(sqlite_uri, a_call(), store_as="ledger")
    told = export(sqlite_uri, "-o", str(home / "no" / "folder.csv"))
    assert (1, True) == (told.exit_code, "cannot be written: No such file" in told.stderr)
    assert [path] == list(home.parent.glob("*calls*"))


def test_rows_are_those_of_the_moment_it_began(database_uri: str) -> None:
    before = [a_call() for _ in range(500)]
    store(database_uri, *before, store_as="ledger")
    with Ledger(database_uri) as ledger:
        rows = values(ledger.over(), content=False)
        first = next(rows)
        writer = threading.Thread(
            target=lambda: store(database_uri, *[a_call() for _ in range(9)], store_as="ledger")
        )
        writer.start()
        writer.join()
        assert sorted(call.id for call in before) == sorted([first[0], *(row[0] for row in rows)])


@pytest.fixture(params=["sqlite", "postgresql"])
def many(request: pytest.FixtureRequest) -> str:
    """A ledger of calls of 20 MB."""
    uri: str = request.getfixturevalue(f"{request.param}_uri".replace("postgresql", "postgres"))
    text = "word " * 2000
    for _ in range(4):
        store(uri, *[a_call(response=text) for _ in range(500)], store_as="ledger")
    return uri


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_memory_does_not_grow_with_the_number_of_calls(
    many: str, form: str, tmp_path: Path
) -> None:
    def peak(days_of: int) -> int:
        gc.collect()
        tracemalloc.start()
        with Ledger(many) as ledger, (tmp_path / "out").open("wb") as file:
            writer = FORMATS[form](file, ALL)
            for row in first(values(ledger.over(), content=True), days_of):
                writer.write(row)
            writer.close()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(2000) < peak(400) + (4 << 20)


def first(rows: Iterator[Any], count: int) -> Iterator[Any]:
    for _, row in zip(range(count), rows, strict=False):
        yield row


def test_parquet_is_written_in_groups_of_bounded_size() -> None:
    row = [None if kind != "time" else 0 for kind in ALL.values()]
    row[0] = "x" * 1_000_000  # type: ignore[call-overload]
    file = io.BytesIO(written("parquet", [tuple(row)] * 100))
    assert 3 == pyarrow.parquet.ParquetFile(file).num_row_groups


def test_what_a_search_finds_is_exported_whole(database_uri: str) -> None:
    odd = 'a 100% \N{LATIN SMALL LETTER E WITH ACUTE}tude_of "quotes"'
    calls = [
        a_call(prompt=f"tell me of {odd}"),
        a_call(response=[{"text": odd.upper()}], start_ns=NOW_NS + 10**9),
        a_call(feature="a 100 per cent", start_ns=NOW_NS + 2 * 10**9),
        a_call(outcome=Outcome(success=False, error_type="E", message="it is 100% wrong")),
    ]
    store(database_uri, *calls[:2], store_as="run+trace")
    store(database_uri, *calls[2:], store_as="ledger")
    with Ledger(database_uri) as ledger:
        for text in ("100%", "QUOTES", "cent", "no such text", "_of"):
            seen = {row.id for row in ledger.over().search(text).rows}
            told = export(database_uri, "--search", text, "--format", "jsonl")
            assert seen == {row["id"] for row in map(json.loads, told.stdout.splitlines())}, text
            csv_rows = export(database_uri, "--search", text, "--format", "csv").stdout
            assert len(seen) == len(read_csv(csv_rows.encode()))
    assert {calls[0].id, calls[1].id, calls[3].id} == ids_found(database_uri, "100%")
    assert 2 == export(database_uri, "--search", " ").exit_code


def ids_found(uri: str, text: str) -> set[str]:
    found = export(uri, "--search", text).stdout.splitlines()
    return {row["id"] for row in map(json.loads, found)}
