"""`flowledger demo` and `replay`: real processes, a real client, numbers from the store."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from flowledger.cli.playback.arrivals import SAMPLE, Arrival, arrivals_in, check
from flowledger.cli.playback.scenario import FEATURES, request_for
from flowledger.errors import ConfigError
from flowledger.testing.llm import StubLLM
from tests.servers import answers_at, free_port

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
NOW = "2023-11-16 18:15:46.6805900"
LATER = "2023-11-16 19:15:46.6805900"
BOX = set("─━│┃┏╸")


@pytest.fixture
def place(tmp_path: Path, empty_sqlite: Path) -> Path:
    """A folder to run in whose demo database has MLflow's tables, which take seconds to make."""
    return prepared(tmp_path, empty_sqlite)


def prepared(folder: Path, database: Path) -> Path:
    (folder / "home" / "demo").mkdir(parents=True)
    with (
        closing(sqlite3.connect(database)) as source,
        closing(sqlite3.connect(folder / "home" / "demo" / "mlflow.db")) as copy,
    ):
        source.backup(copy)  # a collector may still be about to leave it
    return folder


class Shown(NamedTuple):
    """A demo that is over: where it ran, and what it printed."""

    place: Path
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, empty_sqlite: Path) -> Shown:
    """One demo for all who only look at it."""
    place = prepared(tmp_path_factory.mktemp("shown"), empty_sqlite)
    return Shown(place, run("demo", "--once", "--calls", "40", place=place))


@pytest.fixture(scope="module")
def hindered(tmp_path_factory: pytest.TempPathFactory, empty_sqlite: Path) -> Shown:
    """A demo with --stub where a key, another address and a proxy are set that nobody is behind."""
    place = prepared(tmp_path_factory.mktemp("hindered"), empty_sqlite)
    nobody = "http://127.0.0.1:1"
    given = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{nobody}/v1", "HTTP_PROXY": nobody}
    return Shown(place, run("demo", "--once", "--stub", "--calls", "3", place=place, **given))


def environment(place: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "FLOWLEDGER_HOME": str(place / "home"),
        **more,
    }


def run(*words: str, place: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flowledger", *words],
        cwd=place,
        env=environment(place, **more),
        capture_output=True,
        text=True,
    )


def stored(place: Path, sql: str) -> list[tuple[object, ...]]:
    """Rows of the demo's own database, read without flowledger."""
    with closing(sqlite3.connect(place / "home" / "demo" / "mlflow.db")) as connection:
        return connection.execute(sql).fetchall()


def table_of(output: str) -> dict[str, list[str]]:
    """The rows of the printed table by their first cell."""
    lines = output.split("feature  ")[1].split("\n\n")[0].splitlines()[1:]
    return {line.split()[0]: line.split()[1:] for line in lines}


def trace(place: Path, text: str) -> str:
    path = place / "trace.csv"
    path.write_text(text)
    return str(path)


def test_the_demo_prints_numbers_that_are_in_the_database(shown: Shown) -> None:
    place, done = shown
    assert (0, "") == (done.returncode, done.stderr)
    assert "All of them are stored" in done.stdout
    rows = stored(
        place,
        "SELECT feature, count(*), sum(1 - success), sum(input_tokens),"
        " CASE WHEN count(total_tokens) > 0 THEN CAST(total(output_tokens) AS INTEGER) END"
        " FROM llm_calls WHERE kind <> 'custom' GROUP BY feature",
    )
    expected = {
        str(name): [
            str(calls),
            str(failed),
            *("-" if n is None else f"{n:,}" for n in numbers),
        ]
        for name, calls, failed, *numbers in rows
    }
    printed = {name: cells[:4] for name, cells in table_of(done.stdout).items() if name != "all"}
    assert expected == printed
    assert "40" == table_of(done.stdout)["all"][0]


def test_the_demo_names_its_arrivals_and_their_licence(shown: Shown) -> None:
    words = "Azure LLM inference trace 2023 (conversation; Microsoft, CC-BY 4.0)"
    assert words in shown.done.stdout
    assert "CC-BY 4.0" in SAMPLE.read_text().split("TIMESTAMP")[0]


def test_what_the_demo_tells_to_type_shows_the_runs(shown: Shown) -> None:
    place, done = shown
    commands = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    recent, show = (line for line in commands if re.search(r"flowledger (recent|show)", line))
    server = next(line for line in commands if "flowledger server" in line)
    bare = {"PATH": os.environ["PATH"], "HOME": str(place)}
    listed = subprocess.run(recent, shell=True, cwd=place, env=bare, capture_output=True, text=True)
    told = subprocess.run(show, shell=True, cwd=place, env=bare, capture_output=True, text=True)
    assert show.split()[-1] in listed.stdout
    assert told.stdout.startswith("=== MLflow Record ===")
    program, *words = shlex.split(server)
    assert Path(program).exists() or shutil.which(program)
    assert ["--port", "5000"] == words[-2:]
    assert words[words.index("--backend-store-uri") + 1].endswith("demo/mlflow.db")


def test_the_demo_leaves_a_server_running_until_ctrl_c(place: Path) -> None:
    port = free_port()
    words = ("demo", "--calls", "3", "--port", str(port))
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flowledger", *words],
            cwd=place,
            env=environment(place),
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    answers_at(f"{url}/health", process, place / "log")
    with urllib.request.urlopen(f"{url}/api/analytics/mlflow/trends?days=62", timeout=60) as answer:
        by_day = [row["request_count"] for row in json.load(answer)["trends"]]
    assert (61, 3) == (len(by_day), by_day[-1])  # two months before, and what was made now
    while f"{url}/ledger " not in (place / "log").read_text():
        assert process.poll() is None, (place / "log").read_text()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert 0 == process.wait(60)
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port))


def test_a_database_that_is_not_the_demos_own_gets_no_history(place: Path, sqlite_uri: str) -> None:
    words = ("demo", "--once", "--calls", "3")
    given = run(*words, place=place, MLFLOW_TRACKING_URI=sqlite_uri)
    asked_for = run(*words, "--history", "2", place=place)
    assert ("3", True) == (table_of(given.stdout)["all"][0], "days before" not in given.stdout)
    assert 3 < int(table_of(asked_for.stdout)["all"][0])


def test_the_demo_leaves_a_database_beside_it_alone(shown: Shown) -> None:
    assert ["home"] == [path.name for path in shown.place.iterdir()]


def test_the_first_demo_ever_makes_its_database(tmp_path: Path) -> None:
    done = run("demo", "--once", "--calls", "3", place=tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    assert [(3,)] == stored(tmp_path, "SELECT count(*) FROM llm_calls WHERE kind <> 'custom'")


def test_the_demo_stores_where_the_environment_says(sqlite_uri: str, tmp_path: Path) -> None:
    done = run("demo", "--once", "--calls", "3", place=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    assert f"stored in    {sqlite_uri}" in done.stdout
    assert not (tmp_path / "home" / "demo").exists()
    assert "FLOWLEDGER_TRACKING_URI=" not in done.stdout


def test_the_demo_stores_in_postgresql_and_tells_no_password(
    postgres_uri: str, tmp_path: Path
) -> None:
    uri = postgres_uri.replace("postgres:@", "postgres:secret@")
    done = run("demo", "--once", "--calls", "3", place=tmp_path, MLFLOW_TRACKING_URI=uri)
    assert (0, "3") == (done.returncode, table_of(done.stdout)["all"][0])
    assert "secret" not in done.stdout
    assert '--backend-store-uri "$MLFLOW_TRACKING_URI"' in done.stdout


def test_the_demo_prints_plain_text_when_nobody_watches(shown: Shown) -> None:
    output = shown.done.stdout
    assert set() == BOX & set(output)
    assert "\x1b" not in output
    lines = [int(done) for done in re.findall(r"^  (\d+) of 40 calls$", output, re.M)]
    assert (sorted(set(lines)), 40) == (lines, lines[-1])


def test_a_second_demo_tells_its_calls_from_earlier_ones(shown: Shown, tmp_path: Path) -> None:
    place = prepared(tmp_path, shown.place / "home" / "demo" / "mlflow.db")
    done = run("demo", "--once", "--calls", "2", place=place)
    assert "2 of these 42 calls were made now" in done.stdout


def test_with_a_key_a_few_short_calls_go_to_the_address_that_is_set(place: Path) -> None:
    with StubLLM() as stub:
        done = run(
            "demo", "--once", place=place, OPENAI_API_KEY="sk-mine", OPENAI_BASE_URL=stub.url
        )
        received = stub.requests
    assert f"gpt-4o-mini at {stub.url}: OPENAI_API_KEY is set" in done.stdout
    assert 8 == len(received)
    assert {"gpt-4o-mini"} == {request.json["model"] for request in received}
    assert {40} == {request.json["max_tokens"] for request in received}
    assert set() == {name for r in received for name in r.headers if name.startswith("x-stub")}
    assert [(0,)] == stored(place, "SELECT count(*) FROM llm_calls WHERE NOT success")


def test_the_stub_can_be_asked_for_though_a_key_is_set(hindered: Shown) -> None:
    assert "a stub server on this machine" in hindered.done.stdout
    assert [(3,)] == stored(
        hindered.place, "SELECT count(*) FROM llm_calls WHERE success AND kind <> 'custom'"
    )


def test_a_proxy_is_not_asked_for_the_stub(hindered: Shown) -> None:
    assert "Failed" not in hindered.done.stdout


def test_a_stub_that_does_not_start_is_told_in_a_sentence(place: Path) -> None:
    (place / "uvicorn.py").write_text("raise RuntimeError('out of order')")
    done = run("demo", "--once", place=place, PYTHONPATH=str(place))
    assert 3 == done.returncode
    assert "flowledger: the stub LLM server did not start: out of order\n" == done.stderr


def test_the_demo_says_so_when_recording_is_switched_off(place: Path) -> None:
    done = run("demo", "--once", place=place, MLFLOW_ENABLED="false")
    expected = "flowledger: recording is switched off: unset MLFLOW_ENABLED\n"
    assert (2, "", expected) == (done.returncode, done.stdout, done.stderr)


def test_ctrl_c_stops_and_tells_what_was_stored(place: Path) -> None:
    # The last arrival comes an hour later, so only an interrupt can end this.
    text = HEADER + f"{NOW},20,5\n" * 3 + f"{LATER},20,5\n"
    with running("replay", trace(place, text), "--speed", "1", place=place) as process:
        output = read_until(process.stdout, "3 of 4 calls")
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    assert (130, "") == (process.returncode, errors)
    assert "Interrupted after 3 calls." in output + rest
    assert "3" == table_of(rest)["all"][0]
    assert [(3,)] == stored(
        place, "SELECT count(*) FROM llm_calls WHERE success AND kind <> 'custom'"
    )


@contextmanager
def running(*words: str, place: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "flowledger", *words],
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def read_until(stream: IO[str] | None, words: str) -> str:
    assert stream is not None
    read = ""
    for line in stream:
        read += line
        if words in line:
            return read
    raise AssertionError(f"{words!r} never came: {read}")


def test_replay_plays_every_line_of_a_file(place: Path) -> None:
    text = f"# a comment\n{HEADER}" + f"{NOW},40,7\n" * 6 + "\n"
    done = run("replay", trace(place, text), "--speed", "0", place=place)
    assert (0, "6") == (done.returncode, table_of(done.stdout)["all"][0])
    assert [(7, 40)] == stored(
        place,
        "SELECT min(output_tokens), max(input_tokens) FROM llm_calls WHERE kind = 'chat'",
    )


def test_replay_plays_so_many_lines_as_asked(place: Path) -> None:
    text = HEADER + f"{NOW},20,5\n" * 9
    done = run("replay", trace(place, text), "--limit", "4", "--speed", "0", place=place)
    assert "4" == table_of(done.stdout)["all"][0]


WRONG = {
    "": "trace.csv is empty",
    HEADER: "has no arrivals",
    "a,b,c\n1,2,3\n": "line 1: the column TIMESTAMP is missing",
    f"{HEADER}{NOW},1,2\n{NOW},x,2\n": "line 3: ContextTokens is 'x'",
    f"{HEADER}{NOW},1,-2\n": "line 2: GeneratedTokens is '-2'",
    f"{HEADER}{NOW},1,\u0661\n": "line 2: GeneratedTokens is",
    f"{HEADER}{NOW},1,99999999999\n": "line 2: GeneratedTokens is '99999999999'",
    f"{HEADER}yesterday,1,2\n": "line 2: TIMESTAMP is 'yesterday'",
    f"{HEADER}{NOW},1\n": "line 2: it has 2 cells",
    f"{HEADER}{NOW},1,2,{'x' * 2000}\n": "line 2: longer than 1000 bytes",
    f"{HEADER}\0,\0\n": "line 2",
}


@pytest.mark.parametrize(("text", "said"), WRONG.items(), ids=list(WRONG.values()))
def test_a_file_that_is_no_trace_is_told_with_its_line(
    text: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        check(Path(trace(tmp_path, text)))


def test_replay_of_a_wrong_file_makes_no_call_and_leaves_with_two(place: Path) -> None:
    done = run("replay", trace(place, "a,b\n"), place=place)
    assert (2, "") == (done.returncode, done.stdout)
    assert "flowledger: trace.csv, line 1: the column TIMESTAMP is missing" in done.stderr


def test_a_file_without_line_ends_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    with path.open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(ConfigError, match="line 1: longer than 1000 bytes"):
        check(path)


def test_a_fault_far_inside_a_large_file_stops_there_and_keeps_what_was_stored(
    place: Path,
) -> None:
    with Path(trace(place, HEADER + f"{NOW},20,5\n" * 110 + "oops\n")).open("ab") as file:
        file.truncate(65 << 20)
    done = run("replay", str(place / "trace.csv"), "--speed", "0", place=place)
    assert 2 == done.returncode
    assert "flowledger: trace.csv, line 112: it has 1 cells" in done.stderr
    assert "110" == table_of(done.stdout)["all"][0]


def test_the_sample_is_the_first_four_hundred_arrivals_of_the_trace() -> None:
    arrivals = list(arrivals_in(SAMPLE))
    assert 400 == len(arrivals)
    assert Arrival(0, 0.0, 374, 44) == arrivals[0]
    assert pytest.approx(106.330221) == arrivals[-1].at


def test_the_same_arrival_asks_the_same_every_time() -> None:
    arrivals = list(arrivals_in(SAMPLE, 50))
    assert [request_for(one) for one in arrivals] == [request_for(one) for one in arrivals]


def test_the_demo_has_every_feature_several_users_and_failures() -> None:
    requests = [request_for(one) for one in arrivals_in(SAMPLE)]
    assert {feature.name for feature in FEATURES} == {one.feature.name for one in requests}
    assert {None, 429, 500, 401} == {one.status for one in requests}
    assert len({one.user_id for one in requests}) >= 10
    assert len({one.session_id for one in requests}) >= 20


def test_the_numbers_of_a_replay_are_json_for_scripts(place: Path) -> None:
    path = trace(place, f"{HEADER}{NOW},9,3\n{NOW},9,3\n")
    done = run("replay", path, "--speed", "0", "--json", place=place)
    assert 0 == done.returncode
    told = json.loads(done.stdout)
    assert (2, 2, 2) == (told["made"], told["stored"], told["all"]["calls"])
    assert 2 == sum(one["calls"] for one in told["features"])
    assert "answered by" in done.stderr
