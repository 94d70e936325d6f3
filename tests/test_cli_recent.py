"""`flowledger recent`: filters, and the live end of the ledger, none twice and none missed."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import sqlalchemy as sa
from click.testing import CliRunner, Result

from flowledger.cli import main
from flowledger.config import Destination
from flowledger.questions import Filters, Ledger
from flowledger.questions.tail import NEAR_LOOKS, Tail
from flowledger.records import Actor, Call, Outcome, encode
from flowledger.store import Sink, open_sink
from tests.calls import a_call

WAIT_SECONDS = 60


@contextmanager
def opened(uri: str) -> Iterator[Sink]:
    """What the collector writes through."""
    sink = open_sink(Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as="ledger"))
    yield sink
    sink.close()


def store(uri: str, *calls: Call) -> None:
    with opened(uri) as sink:
        assert [] == sink.write(list(map(encode, calls)))


def recent(uri: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["recent", *words], env={"FLOWLEDGER_TRACKING_URI": uri})


@contextmanager
def following(uri: str, folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command under way, in an environment that holds nothing else."""
    with subprocess.Popen(
        [sys.executable, "-m", "flowledger", "recent", "--follow", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "FLOWLEDGER_TRACKING_URI": uri},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(file: IO[str] | None) -> str:
    assert file is not None
    return file.readline()


def left(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code, and what was said on stderr."""
    assert process.stderr is not None
    code = process.wait(WAIT_SECONDS)
    return code, process.stderr.read()


def test_each_filter_leaves_the_calls_it_names(home: Path, database_uri: str) -> None:
    ordinary = a_call()
    odd = {
        "--user": a_call(actor=Actor(user_id="odd")),
        "--session": a_call(actor=Actor(session_id="odd")),
        "--persona": a_call(actor=Actor(persona_id="odd")),
        "--feature": a_call(feature="odd"),
        "--model": a_call(model="odd"),
        "--provider": a_call(provider="odd"),
        "--experiment": a_call(experiment="odd"),
        "--tag": a_call(tags={"colour": "odd"}),
        "--failed": a_call(outcome=Outcome(success=False, error_type="odd")),
    }
    store(database_uri, ordinary, *odd.values())
    found = {}
    for option in odd:
        value = {"--failed": [], "--tag": ["colour=odd"]}.get(option, ["odd"])
        told = recent(database_uri, "--json", option, *value)
        found[option] = [row["id"] for row in json.loads(told.stdout)]
    assert {option: [call.id] for option, call in odd.items()} == found


def test_no_such_call_is_an_empty_answer_and_exit_code_one(home: Path, sqlite_uri: str) -> None:
    store(sqlite_uri, a_call())
    told = recent(sqlite_uri, "--user", "nobody")
    as_json = recent(sqlite_uri, "--user", "nobody", "--json")
    unknown = recent(sqlite_uri, "--feature", "nothing")
    assert (1, "") == (told.exit_code, told.stdout)
    assert "no such call is stored" in told.stderr
    assert (1, []) == (as_json.exit_code, json.loads(as_json.stdout))
    assert (1, "") == (unknown.exit_code, unknown.stdout)
    assert "there are: support" in unknown.stderr


def test_a_filter_that_cannot_be_asked_for_is_wrong_usage(home: Path, sqlite_uri: str) -> None:
    store(sqlite_uri, a_call())
    told = recent(sqlite_uri, "--tag", "colour")
    assert (2, "") == (told.exit_code, told.stdout)
    assert "write key=value" in told.stderr


def test_calls_stored_by_two_writers_at_once_come_once_each(database_uri: str) -> None:
    store(database_uri, a_call())
    made = [[[a_call() for _ in range(20)] for _ in range(10)] for _ in range(2)]

    def write(batches: list[list[Call]]) -> None:
        with opened(database_uri) as sink:
            for batch in batches:
                sink.write(list(map(encode, batch)))

    with Ledger(database_uri) as ledger:
        tail = Tail(ledger.over())
        writers = [threading.Thread(target=write, args=(batches,)) for batches in made]
        for writer in writers:
            writer.start()
        seen = []
        while any(writer.is_alive() for writer in writers):
            seen += [row.id for row in tail.new()]
        seen += [row.id for row in tail.new()]
    assert sorted(call.id for one in made for batch in one for call in batch) == sorted(seen)


def test_the_latest_calls_do_not_come_again_and_old_ones_that_arrive_now_do(
    database_uri: str,
) -> None:
    first, long_ago = a_call(), a_call(start_ns=1_600_000_000 * 10**9)
    store(database_uri, first)
    with Ledger(database_uri) as ledger:
        tail = Tail(ledger.over(filters=Filters(feature="support")))
        between = a_call()
        store(database_uri, between)
        assert [between.id, first.id] == [row.id for row in tail.latest(5)]
        store(database_uri, long_ago, a_call(feature="other"))
        assert [long_ago.id] == [row.id for row in tail.new()]
        assert [] == tail.new()


def test_a_call_whose_transaction_or_clock_was_minutes_late_still_comes_once(
    database_uri: str,
) -> None:
    store(database_uri, a_call())
    late = a_call()
    with Ledger(database_uri) as ledger:
        tail = Tail(ledger.over())
        store(database_uri, late)
        engine = sa.create_engine(database_uri)
        with engine.begin() as connection:
            connection.execute(
                sa.text("UPDATE llm_calls SET received_ms = received_ms - 300000 WHERE id = :id"),
                {"id": late.id},
            )
        engine.dispose()
        seen = [row.id for _ in range(2 * NEAR_LOOKS) for row in tail.new()]
    assert [late.id] == seen


def test_nothing_is_missed_while_the_follower_sleeps(sqlite_uri: str) -> None:
    store(sqlite_uri, a_call())
    now_ms = a_call().start_ns // 1_000_000 - 3_600_000
    with Ledger(sqlite_uri) as ledger:
        tail = Tail(ledger.over(), lambda: now_ms)
        meanwhile = a_call()
        store(sqlite_uri, meanwhile)
        tail.new()
        now_ms += 3 * 3_600_000
        after = a_call()
        store(sqlite_uri, after)
        assert [after.id] == [row.id for row in tail.new()]


def test_following_prints_each_new_call_until_ctrl_c(database_uri: str, tmp_path: Path) -> None:
    first, second, third = a_call(), a_call(), a_call()
    store(database_uri, first)
    with following(database_uri, tmp_path, "--json", "-n", "1") as process:
        lines = [json.loads(line_of(process.stdout))]
        for call in (second, third):
            store(database_uri, call)
            lines.append(json.loads(line_of(process.stdout)))
        process.send_signal(signal.SIGINT)
        assert (0, "") == left(process)
    assert [first.id, second.id, third.id] == [line["id"] for line in lines]


def test_following_in_columns_ends_quietly_when_its_reader_leaves(
    sqlite_uri: str, tmp_path: Path
) -> None:
    first, second = a_call(), a_call(model="a-model-with-a-longer-name-than-before")
    store(sqlite_uri, first)
    with following(sqlite_uri, tmp_path) as process:
        head = line_of(process.stdout).split()
        shown = [line_of(process.stdout).split()[0]]
        store(sqlite_uri, second)
        shown.append(line_of(process.stdout).split()[0])
        assert process.stdout is not None
        process.stdout.close()
        assert (0, "") == left(process)
    assert ("id", [first.id, second.id]) == (head[0], shown)


def test_following_waits_for_a_database_that_is_not_there_yet(
    empty_sqlite: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'later.db'}"
    call = a_call()
    with following(uri, tmp_path, "--json") as process:
        assert "nothing is stored yet" in line_of(process.stderr)
        store(uri, call)
        line = line_of(process.stdout)
        process.send_signal(signal.SIGINT)
        code, _ = left(process)
    assert (0, call.id) == (code, json.loads(line)["id"])


def test_following_needs_no_calls_to_begin_with_and_listing_does(home: Path) -> None:
    assert 2 == recent("sqlite:///x.db", "-n", "0").exit_code
