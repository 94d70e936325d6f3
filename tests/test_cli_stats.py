"""`flowledger stats` and `compare`: all calls of a window, taken apart and side by side."""

import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flowledger.cli import main
from flowledger.config import Destination
from flowledger.records import Actor, Call, Outcome, Usage, encode
from flowledger.store import open_sink
from tests.calls import NOW_NS, a_call

DAY_NS = 86_400 * 10**9
FAILED = Outcome(success=False, error_type="Timeout")


def store(uri: str, *calls: Call) -> None:
    sink = open_sink(Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as="ledger"))
    assert [] == sink.write(list(map(encode, calls)))
    sink.close()


def run(uri: str, *words: str) -> Result:
    return CliRunner().invoke(main, list(words), env={"FLOWLEDGER_TRACKING_URI": uri})


def asked(uri: str, *words: str) -> Any:
    told = run(uri, *words, "--json")
    assert 0 == told.exit_code, told.stderr
    return json.loads(told.stdout)


def some_calls() -> list[Call]:
    """Ten calls: four of ana, three of ben, two of cleo, one of nobody; one a day, newest first."""
    users = ["ana"] * 4 + ["ben"] * 3 + ["cleo"] * 2 + [None]
    return [
        a_call(
            start_ns=NOW_NS - place * DAY_NS,
            actor=Actor(user_id=user),
            model="gpt-4o" if place % 2 else "house-7b",
            model_asked=None,
            outcome=FAILED if user == "ben" else Outcome(),
            cost_usd=5.0 if user == "cleo" else 0.25,
        )
        for place, user in enumerate(users)
    ]


def test_parts_and_what_is_left_over_add_up_to_the_whole(home: Path, database_uri: str) -> None:
    store(database_uri, *some_calls())
    told = asked(database_uri, "stats", "--by", "user", "-n", "2")
    rows = [(row["name"], row["calls"], row["failed"], row["cost_usd"]) for row in told["rows"]]
    assert [("ana", 4, 0, 1.0), ("ben", 3, 3, 0.75), ("(others)", 3, 0, 10.25)] == rows
    assert (10, 3, 12.0, 30.0) == (
        told["whole"]["calls"],
        told["whole"]["failed"],
        told["whole"]["cost_usd"],
        told["whole"]["error_rate"],
    )
    every = asked(database_uri, "stats", "--by", "user")
    assert ["ana", "ben", "cleo", "(none)"] == [row["name"] for row in every["rows"]]


def test_bars_say_what_comes_first(home: Path, sqlite_uri: str) -> None:
    store(sqlite_uri, *some_calls())
    told = asked(sqlite_uri, "stats", "--by", "user", "--bars", "cost", "-n", "1")
    assert ["cleo", "(others)"] == [row["name"] for row in told["rows"]]


def test_days_without_calls_are_there(home: Path, sqlite_uri: str) -> None:
    store(sqlite_uri, *[a_call(start_ns=NOW_NS - days * DAY_NS) for days in (1, 3)])
    told = asked(sqlite_uri, "stats", "--by", "day")
    today = datetime.fromtimestamp(NOW_NS / 1e9, UTC)
    expected = [
        (f"{today - timedelta(days=days):%Y-%m-%d}", calls)
        for days, calls in ((3, 1), (2, 0), (1, 1), (0, 0))
    ]
    assert expected == [(row["name"], row["calls"]) for row in told["rows"]]


def test_a_window_is_what_the_options_say(home: Path, sqlite_uri: str) -> None:
    store(sqlite_uri, *some_calls())
    today = datetime.fromtimestamp(NOW_NS / 1e9, UTC)
    yesterday = f"{today - timedelta(days=1):%Y-%m-%d}"
    at = f"{today - timedelta(days=1):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
    counts = {
        name: asked(sqlite_uri, "stats", *words)["whole"]["calls"]
        for name, words in {
            "days": ["--days", "2.5"],
            "a day": ["--from", yesterday, "--to", yesterday],
            "from a day": ["--from", yesterday],
            "from a moment": ["--from", at],
            "another zone": ["--from", at.replace("Z", "+00:00")],
            "days before a day": ["--to", yesterday, "--days", "1"],
        }.items()
    }
    assert {
        "days": 3,
        "a day": 1,
        "from a day": 2,
        "from a moment": 2,
        "another zone": 2,
        "days before a day": 1,
    } == counts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "yesterday"], "is no date"),
        (["--to", "9999-12-31"], "is no date"),
        (["--from", "2026-01-01", "--days", "3"], "leave it or --from out"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "ends before it begins"),
        (["--days", "nan"], "--days"),
        (["--days", "0"], "not in the range"),
        (["--by", "hair"], "'--by'"),
    ],
    ids=str,
)
def test_a_window_that_is_none_is_wrong_usage(home: Path, words: list[str], said: str) -> None:
    told = run("sqlite:///mlflow.db", "stats", *words)
    assert (2, "") == (told.exit_code, told.stdout)
    assert said in told.stderr


def test_a_window_without_calls_leaves_with_one(home: Path, sqlite_uri: str) -> None:
    store(sqlite_uri, a_call(start_ns=NOW_NS - 9 * DAY_NS))
    told = run(sqlite_uri, "stats", "--days", "1")
    as_json = run(sqlite_uri, "stats", "--days", "1", "--json")
    assert (1, "") == (told.exit_code, told.stdout)
    assert "no calls: " in told.stderr
    assert (1, []) == (as_json.exit_code, json.loads(as_json.stdout)["rows"])


def test_in_a_pipe_there_are_plain_columns_with_nothing_cut(home: Path, sqlite_uri: str) -> None:
    store(
        sqlite_uri,
        a_call(feature="f" * 90),
        a_call(feature="f" * 90),
        a_call(feature="\x1b[2J\na\tb"),
    )
    told = run(sqlite_uri, "stats", "--by", "feature")
    assert "f" * 90 + "  ####################   66.7%      2" in told.stdout
    assert "\\x1b[2J\\na\\tb " in told.stdout
    assert told.stdout.replace("\n", "").isprintable()
    assert told.stdout.isascii()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_on_a_terminal_bars_fit_it_with_and_without_colour(
    sqlite_uri: str, tmp_path: Path, width: int
) -> None:
    store(sqlite_uri, *some_calls())
    lines = on_a_terminal(["stats", "--by", "user"], sqlite_uri, tmp_path, width)
    assert max(map(len, lines)) <= width
    [ana] = [line for line in lines if line.startswith("ana")]
    [cleo] = [line for line in lines if line.startswith("cleo")]
    assert ana.count("\u2588") >= 8
    assert abs(ana.count("\u2588") - 2 * cleo.count("\u2588")) <= 1


def on_a_terminal(words: list[str], uri: str, folder: Path, width: int) -> list[str]:
    """The lines a command prints to a terminal that knows no colour."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "flowledger", *words],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "FLOWLEDGER_TRACKING_URI": uri,
            "COLUMNS": str(width),
            "TERM": "xterm",
            "NO_COLOR": "1",
            "LANG": "C.UTF-8",
        },
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while some := os.read(ours, 65536):
                shown += some
        except OSError:
            pass  # on Linux the end of a terminal's output is an error
        os.close(ours)
    assert 0 == process.returncode
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]", shown)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).splitlines()


def two_models() -> list[Call]:
    """200 calls of a model of which 10 fail, 200 of one of which 60 do, and takes twice as long."""
    return [
        a_call(
            model=model,
            model_asked=None,
            duration_ns=round(ms * (1 + place % 10 / 50) * 1e6),
            outcome=FAILED if place < failing else Outcome(),
            cost_usd=price,
            usage=Usage(input_tokens=10, output_tokens=5),
            metrics={"confidence_score": score + place % 5 / 100},
        )
        for model, failing, ms, price, score in (
            ("good", 10, 100, 0.5, 0.9),
            ("bad", 60, 200, 0.25, 0.5),
        )
        for place in range(200)
    ]


def test_models_are_compared_with_how_sure_it_is(home: Path, database_uri: str) -> None:
    store(database_uri, *two_models())
    told = asked(database_uri, "compare", "good", "bad")
    sides = [(side["model"], side["calls"], side["error_rate"]) for side in told["models"]]
    assert [("good", 200, 5.0), ("bad", 200, 30.0)] == sides
    assert [0.5, 0.25] == [side["cost_per_call_usd"] for side in told["models"]]
    found = {one["measure"]: (one["sure"], one["difference"]) for one in told["differences"]}
    assert {
        "error rate, points": (True, pytest.approx(25.0)),
        "mean latency, ms": (True, pytest.approx(109.0)),
        "cost per call, US dollars": (False, pytest.approx(-0.25)),
        "confidence": (True, pytest.approx(-0.4)),
    } == found
    # Wilson's interval of 10 in 200, and Newcombe's of 60 in 200 less that.
    assert [2.74, 8.96] == [round(end, 2) for end in told["models"][0]["error_rate_interval"]]
    assert [17.87, 32.05] == [round(end, 2) for end in told["differences"][0]["interval"]]


def test_a_comparison_says_in_sentences_what_is_sure(home: Path, sqlite_uri: str) -> None:
    store(sqlite_uri, *two_models(), a_call(model="rare", model_asked=None))
    told = run(sqlite_uri, "compare", "good", "bad", "rare")
    assert "bad fails 25.00 points more often than good (+17.87 to +32.05 at 95 %" in told.stdout
    assert "bad costs 50% less per call than good" in told.stdout
    assert "rare takes" in told.stdout
    assert "too few for an interval: not sure)." in told.stdout
    assert "Wilson (1927)" in told.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["good"], 2, "two or more"),
        (["good", "good"], 2, "two or more"),
        (["good", "bad", "--model", "x"], 2, "leave --model out"),
        (["good", "worse"], 1, "no call of worse in this window; there are: "),
    ],
    ids=str,
)
def test_a_comparison_of_nothing_says_what_to_change(
    home: Path, sqlite_uri: str, words: list[str], code: int, said: str
) -> None:
    store(sqlite_uri, *two_models())
    told = run(sqlite_uri, "compare", *words)
    assert (code, "") == (told.exit_code, told.stdout)
    assert said in told.stderr
