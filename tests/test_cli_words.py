"""What every command keeps to: JSON, exit codes, words on their page, and quick help."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import flowledger
from flowledger.capture import recorder
from flowledger.cli import COMMANDS, main
from flowledger.config import Destination, load
from flowledger.records import Call, decode, encode
from flowledger.store import open_sink
from tests.calls import a_call

PAGE = (Path(__file__).parent.parent / "docs/cli.md").read_text()
HEAVY = ("sqlalchemy", "mlflow", "altair", "pyarrow", "fpdf", "vl_convert", "jinja2", "fastapi")
WITHOUT_RESULT = ("run", "server")  # they become another program, and go on until they are stopped


def run(uri: str, *words: str) -> Result:
    return CliRunner().invoke(main, list(words), env={"FLOWLEDGER_TRACKING_URI": uri})


def store(uri: str, *payloads: bytes) -> None:
    sink = open_sink(
        Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as="run+trace")
    )
    assert [] == sink.write(list(payloads))
    sink.close()


def recorded(work: Callable[[], None]) -> list[bytes]:
    """The records of some work, as they go into the journal."""
    kept: list[bytes] = []
    made = recorder.Recorder(load(), "0" * 32, lambda seq, payload: kept.append(payload))
    before = recorder.use(made)
    try:
        work()
    finally:
        recorder.use(before)
    return kept


def commands(name: str = "", command: click.Command = main) -> Iterator[tuple[str, click.Command]]:
    """Every command with its name, those inside others too."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for inner in command.list_commands(context):
        found = command.get_command(context, inner)
        assert found is not None
        yield from commands(f"{name} {inner}".strip(), found)


def test_every_command_is_on_its_page() -> None:
    assert [] == [name for name in COMMANDS if f"flowledger {name}" not in PAGE]


def test_every_option_that_many_commands_share_is_on_the_page() -> None:
    named = [
        option
        for name, command in commands()
        if name in ("recent", "stats", "compare", "report", "export")
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    ]
    shared = {option for option in named if named.count(option) > 1}
    told = {option for option in shared if option not in PAGE}
    assert {"--format", "--limit"} >= told


def test_every_command_that_has_a_result_prints_it_as_json() -> None:
    without = [
        name
        for name, command in commands()
        if "--json" not in {option for parameter in command.params for option in parameter.opts}
    ]
    assert list(WITHOUT_RESULT) == without


@pytest.mark.parametrize("name", [name for name, _ in commands() if name != "run"])
def test_an_option_that_is_none_is_exit_code_two_and_one_sentence(name: str, home: Path) -> None:
    told = run("sqlite:///nothing.db", *name.split(), "--no-such-option")
    assert (2, "") == (told.exit_code, told.stdout)
    assert "No such option" in told.stderr


NEEDS_A_DATABASE = (
    "recent", "stats", "compare a b", "show abcdef", "report", "export", "evidence check",
    "evidence verify", "erase --user a --yes", "purge --older-than 1d --yes", "keys list",
    "backup x", "migrate --status", "keys revoke a",
)  # fmt: skip


@pytest.mark.parametrize("words", NEEDS_A_DATABASE)
def test_a_setting_that_is_wrong_is_exit_code_two(
    words: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWLEDGER_JOURNAL_MAX_BYTES", "plenty")
    told = run("sqlite:///nothing.db", *words.split(), "--json")
    assert (2, "") == (told.exit_code, told.stdout)
    assert "journal_max_bytes" in told.stderr


@pytest.mark.parametrize("words", NEEDS_A_DATABASE)
def test_a_database_that_does_not_answer_is_exit_code_three_for_all(words: str, home: Path) -> None:
    told = run("postgresql://ana:secret@127.0.0.1:1/x", *words.split(), "--json")
    assert (3, "", False) == (told.exit_code, told.stdout, "secret" in told.stderr)


@pytest.mark.parametrize(
    "words",
    ["recent", "stats --by feature", "compare gpt-4o a", "show {id}", "report", "evidence check",
     "keys list", "evidence verify", "docs list", "docs search x", "doctor", "migrate --status",
     "--help", "erase --user ana --dry-run"],
)  # fmt: skip
def test_what_is_piped_has_no_colour_and_no_line_is_cut_or_wrapped(
    words: str, home: Path, sqlite_uri: str
) -> None:
    reason = "a reason that is longer than any narrow window " * 3
    call = a_call(feature="an-unusually-long-name-of-a-feature-" * 3, tags={"why": reason})
    store(sqlite_uri, encode(call))
    words = words.format(id=call.id)
    narrow = {"FLOWLEDGER_TRACKING_URI": sqlite_uri, "COLUMNS": "30", "FORCE_COLOR": "1"}
    told = subprocess.run(
        [sys.executable, "-m", "flowledger", *words.split()],
        env={**os.environ, **narrow, "TERM": "xterm-256color"},
        capture_output=True,
        text=True,
    )
    assert not re.search(r"[\x1b\r]", told.stdout + told.stderr)
    if words in ("recent", "stats --by feature"):
        assert str(call.feature) in told.stdout
    if words.startswith("show"):
        assert f"  why: {reason.rstrip()}" in told.stdout


def test_what_operators_do_is_told_as_json(home: Path, sqlite_uri: str, tmp_path: Path) -> None:
    store(sqlite_uri, encode(a_call()))
    (tmp_path / "a.txt").write_text("hello")

    def answer(*words: str, uri: str = sqlite_uri) -> Any:
        done = run(uri, *words, "--json")
        assert 0 == done.exit_code, done.output
        return json.loads(done.stdout)

    saved = answer("backup", "b.backup")
    assert {"file": "b.backup", "bytes": (tmp_path / "b.backup").stat().st_size} == saved
    again = answer("restore", "b.backup", uri="sqlite:///again.db")
    assert (1, 1, True) == (again["calls"], again["runs"], again["sums_hold"])
    steps = answer("migrate", "--status")["steps"]
    assert [True] * len(steps) == [step["taken_ms"] is not None for step in steps]
    newest = steps[-1]["number"]
    assert 2 == run(sqlite_uri, "migrate", "--to", str(newest - 1), "--json").exit_code
    back = answer("migrate", "--to", str(newest - 1), "--yes")
    assert ([newest], newest - 1) == (back["taken_back"], back["at"])
    forward = answer("migrate")
    assert ([newest], [], newest) == (forward["taken"], forward["taken_back"], forward["at"])
    answer("docs", "add", "a.txt")
    assert {"removed": "a.txt"} == answer("docs", "remove", "a.txt")
    answer("keys", "create", "shop")
    assert {"revoked": "shop"} == answer("keys", "revoke", "shop")
    assert {"from", "to", "filters"} < answer("report").keys()
    assert 1 == len(run(sqlite_uri, "export", "--json").stdout.splitlines())
    assert 2 == run(sqlite_uri, "demo", "--json").exit_code


@pytest.mark.parametrize("words", [[], ["stats"], ["report"], ["export"], ["compare"]], ids=str)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom flowledger.cli import main\n"
        f"try: main({[*words, '--help']})\n"
        f"except SystemExit: print('loaded', [m for m in {HEAVY} if m in sys.modules])"
    )
    told = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "loaded []" == told.splitlines()[-1]


@pytest.mark.parametrize("command", ["recent", "stats", "show abcdef", "report", "export"])
def test_a_database_that_does_not_answer_is_exit_code_three(home: Path, command: str) -> None:
    told = run("postgresql://ana:secret@127.0.0.1:1/x", *command.split())
    assert (3, "") == (told.exit_code, told.stdout)
    assert "cannot be read" in told.stderr
    assert "secret" not in told.stderr


@pytest.mark.parametrize("command", ["recent", "stats", "show abcdef", "report", "export"])
def test_a_database_that_is_not_there_is_exit_code_one(home: Path, command: str) -> None:
    told = run("sqlite:///nothing.db", *command.split())
    assert (1, "") == (told.exit_code, told.stdout)
    assert "nothing.db, which does not exist: record a call first" in told.stderr


@pytest.mark.parametrize(
    "command", ["recent", "stats --by feature", "compare a b", "report", "export"]
)
def test_a_ledger_with_tables_and_no_calls_is_told_apart_from_a_fault(
    home: Path, sqlite_uri: str, command: str
) -> None:
    store(sqlite_uri)
    told = run(sqlite_uri, *command.split())
    assert (0 if command in ("report", "export") else 1, False) == (
        told.exit_code,
        "Traceback" in told.output,
    )


def test_small_answers_are_json_too(home: Path, sqlite_uri: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")

    def answer(*words: str) -> Any:
        return json.loads(run(sqlite_uri, *words, "--json").stdout)

    assert {"version": flowledger.__version__} == answer("version")
    assert {"added": 1, "passages": 1, "unchanged": 0, "failed": 0} == answer(
        "docs", "add", "a.txt"
    )
    assert {"name", "token"} == answer("keys", "create", "shop").keys()
    place = {"place": sqlite_uri, "said": "every journal is shipped", "error": None}
    assert [place] == answer("collect", "--once")


def test_completion_knows_commands_and_options() -> None:
    environment = {"_FLOWLEDGER_COMPLETE": "bash_complete"}
    for words, wanted in (("flowledger st", "stats"), ("flowledger stats --b", "--bars")):
        told = subprocess.check_output(
            [Path(sys.executable).parent / "flowledger"],
            env={**environment, "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
            text=True,
        )
        assert f"plain,{wanted}" in told.splitlines()


def a_job() -> None:
    with flowledger.job("process", feature="pipeline") as job, job.stage("analysis"):
        with flowledger.span("fetch", "RETRIEVER", inputs="paper") as span:
            span.set_outputs(["a snippet"])
        flowledger.record(model="gpt-4o", prompt="Sum up.", response="Done.", input_tokens=3)


def test_a_call_is_shown_with_its_job_its_spans_and_its_sources(
    home: Path, database_uri: str
) -> None:
    payloads = recorded(a_job)
    [call] = [record for record in map(decode, payloads) if isinstance(record, Call)]
    store(database_uri, *payloads)
    told = run(database_uri, "show", call.id).stdout
    assert re.search(r"PART OF:\n  stage: analysis, \w{32}\n  job: process, \w{32}\n", told)
    assert 'SOURCES:\n  [["a snippet"]]\n' in told
    names = re.findall(r"^ +[\d.]+ m?s  ( *)(\w+): .*?(<- this call)?$", told, re.M)
    assert [
        ("", "process", ""),
        ("  ", "analysis", ""),
        ("    ", "fetch", ""),
        ("    ", "chat", "<- this call"),
    ] == names
    shown = json.loads(run(database_uri, "show", call.id, "--json").stdout)
    assert ["stage", "job"] == [one["kind"] for one in shown["part_of"]]
    assert ([["a snippet"]], 4, []) == (
        shown["sources"],
        len(shown["spans"]),
        shown["calls_inside"],
    )


def test_a_call_around_others_is_shown_with_them(home: Path, database_uri: str) -> None:
    outer = a_call(inner_calls=1, operation="answer", model=None, model_asked=None)
    inner = a_call(parent_id=outer.id)
    store(database_uri, encode(outer), encode(inner))
    assert (
        f"CALLS INSIDE:\n  {inner.id}: answer, gpt-4o" in run(database_uri, "show", outer.id).stdout
    )
    assert f"PART OF:\n  call: answer, {outer.id}\n" in run(database_uri, "show", inner.id).stdout
