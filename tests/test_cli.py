"""The command line: what `recent`, `show` and `doctor` print, and the codes they leave with."""

import json
import os
import pty
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

import flowledger
from flowledger.cli import COMMANDS, main
from flowledger.config import Destination, load
from flowledger.journal import Writer
from flowledger.records import Call, Outcome, Producer, ToolCall, encode
from flowledger.store import open_sink
from tests.calls import a_call
from tests.test_store import ADVICE, UPGRADED, change

PROCESS = "0" * 32


def run(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m flowledger` in an empty folder with an environment that holds nothing else."""
    return subprocess.run(
        [sys.executable, "-m", "flowledger", *words],
        cwd=folder,
        env=clean_environment(folder, **environment),
        capture_output=True,
        text=True,
    )


def clean_environment(folder: Path, **environment: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "FLOWLEDGER_HOME": str(folder / "home"),
        **environment,
    }


def store(uri: str, *calls: Call) -> None:
    """Put calls where the collector would."""
    sink = open_sink(
        Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as="run+trace")
    )
    assert sink.write(list(map(encode, calls))) == []
    sink.close()


def journal(uri: str, folder: Path, *payloads: bytes, max_bytes: int = 1 << 20) -> Path:
    """A journal left behind by a process that is gone, for this destination."""
    environment = clean_environment(folder, FLOWLEDGER_TRACKING_URI=uri)
    settings = load(environment)
    writer = Writer(
        settings.journal_folder,
        producer_id=PROCESS,
        producer=encode(Producer(id=PROCESS, producer=PROCESS)),
        max_bytes=max_bytes,
    )
    for seq, payload in enumerate(payloads, 1):
        writer.append(seq, payload)
    writer.close()
    destination = msgspec.json.encode(settings.destination.redacted())
    (settings.journal_folder / "destination.json").write_bytes(destination)
    return settings.journal_folder


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_with_examples(command: str) -> None:
    told = CliRunner().invoke(main, [command, "--help"])
    assert (0, True) == (told.exit_code, command == "version" or "Examples:" in told.output)


def test_help_lists_every_command() -> None:
    told = CliRunner().invoke(main, ["--help"])
    assert [] == [name for name in COMMANDS if not re.search(rf"^  {name} ", told.output, re.M)]


@pytest.mark.parametrize(
    "words",
    [["recent", "-n", "0"], ["recent", "-n", "x"], ["show"], ["demo", "--calls", "9999"], ["nope"]],
    ids=" ".join,
)
def test_wrong_usage_leaves_with_two(words: list[str]) -> None:
    assert 2 == CliRunner().invoke(main, words).exit_code


def test_the_module_is_the_same_as_the_program(tmp_path: Path) -> None:
    done = run("version", folder=tmp_path)
    assert (0, f"{flowledger.__version__}\n", "") == (done.returncode, done.stdout, done.stderr)


def test_recent_lists_whole_ids_in_plain_text_when_nobody_watches(
    sqlite_uri: str, tmp_path: Path
) -> None:
    worked = a_call(operation="answer_a_question_at_some_length", model="m" * 60)
    failed = a_call(outcome=Outcome(success=False, error_type="RateLimitError"))
    store(sqlite_uri, worked, failed)
    done = run("recent", folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    header, *lines = done.stdout.splitlines()
    assert {worked.id, failed.id} == {line.split()[0] for line in lines}
    assert "id started feature operation model user tokens cost latency status" == " ".join(
        header.replace("(UTC)", "").split()
    )
    assert any(line.endswith("  failed: RateLimitError") for line in lines)
    assert any("m" * 60 in line for line in lines)
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout


def test_recent_on_a_terminal_fits_it_and_keeps_ids_whole(sqlite_uri: str, tmp_path: Path) -> None:
    call = a_call()
    store(sqlite_uri, call)
    shown = on_a_terminal(["recent"], clean_environment(tmp_path, MLFLOW_TRACKING_URI=sqlite_uri))
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).splitlines()
    assert call.id in shown
    assert max(map(len, lines)) <= 80


def on_a_terminal(words: list[str], environment: dict[str, str]) -> str:
    """What a command prints to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flowledger", *words],
        env=environment | {"COLUMNS": "80", "TERM": "xterm"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while some := os.read(ours, 65536):
            shown += some
    except OSError:
        pass  # on Linux the end of a terminal's output is an error
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def test_recent_prints_json_with_every_field(sqlite_uri: str, tmp_path: Path) -> None:
    call = a_call()
    store(sqlite_uri, call)
    done = run("recent", "--json", "-n", "1", folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    [row] = json.loads(done.stdout)
    assert (call.id, "ana", 120, True) == (
        row["id"],
        row["user_id"],
        row["total_tokens"],
        row["success"],
    )


@pytest.mark.parametrize("words", [["recent"], ["show", "abcdef"]], ids=" ".join)
def test_with_nothing_stored_a_sentence_says_what_to_do(words: list[str], tmp_path: Path) -> None:
    done = run(*words, folder=tmp_path)
    assert (1, "") == (done.returncode, done.stdout)
    assert "nothing is stored yet" in done.stderr
    assert "flowledger demo" in done.stderr
    assert [] == list(tmp_path.iterdir())


def test_show_prints_the_record_as_an_auditor_reads_it(sqlite_uri: str, tmp_path: Path) -> None:
    call = a_call(
        tool_calls=[ToolCall(name="look_up", arguments='{"order": 7}')],
        notes=["prompt is cut: it is longer than 5 bytes"],
        tags={"team": "shop"},
    )
    store(sqlite_uri, call)
    done = run("show", call.id[:31], folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    titles = [line for line in done.stdout.splitlines() if re.match(r"[A-Z=]", line)]
    assert [
        "=== MLflow Record ===",
        "RUN IDENTIFICATION:",
        "PARAMETERS:",
        "METRICS:",
        "COST:",
        "TAGS:",
        "PROMPT:",
        "RESPONSE:",
        "TOOLS:",
        "NOTES:",
    ] == titles
    for line in (
        "  User ID: ana",
        "  Audit Reason: support",
        "  Model: gpt-4o-2024-08-06",
        f"  Run ID: {call.id}",
        "  temperature: 0.7",
        "  input_tokens: 100",
        "  success: 1.0",
        "  team: shop",
        "  user: Where is my order?",
        "  On its way.",
        '  look_up: {"order": 7}',
        "  prompt is cut: it is longer than 5 bytes",
    ):
        assert line in done.stdout.splitlines(), line


def test_show_of_a_failed_call_tells_the_error_and_its_stack(
    sqlite_uri: str, tmp_path: Path
) -> None:
    outcome = Outcome(success=False, error_type="E", message="no\nluck", stack="line 1\nline 2")
    call = a_call(outcome=outcome)
    store(sqlite_uri, call)
    done = run("show", call.id, folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    assert "ERROR:\n  type: E\n  message: no\n    luck\n" in done.stdout
    assert "STACK:\n  line 1\n  line 2\n" in done.stdout


def test_show_cuts_a_long_prompt_unless_told_not_to(sqlite_uri: str, tmp_path: Path) -> None:
    call = a_call(prompt="x" * 5_000)
    store(sqlite_uri, call)
    cut = run("show", call.id, folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    full = run("show", call.id, "--full", folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    assert "more characters: --full shows them" in cut.stdout
    assert "x" * 5_000 in full.stdout


def test_show_does_not_let_a_model_steer_the_terminal(sqlite_uri: str, tmp_path: Path) -> None:
    call = a_call(response="\x1b]0;owned\x07\rgone")
    store(sqlite_uri, call)
    done = run("show", call.id, folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    assert "  \\x1b]0;owned\\x07\\x0dgone" in done.stdout


def test_show_prints_json_of_everything(sqlite_uri: str, tmp_path: Path) -> None:
    call = a_call()
    store(sqlite_uri, call)
    done = run("show", "--json", call.id, folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    shown = json.loads(done.stdout)
    assert (call.prompt, call.response, "support") == (
        shown["content"]["prompt"],
        shown["content"]["response"],
        shown["experiment"],
    )


def test_the_doctor_finds_a_healthy_store_well(sqlite_uri: str, tmp_path: Path) -> None:
    store(sqlite_uri, a_call())
    done = run("doctor", folder=tmp_path, FLOWLEDGER_TRACKING_URI=sqlite_uri)
    assert (0, "") == (done.returncode, done.stderr)
    assert "All is well." in done.stdout
    assert "it answers, and holds 1 records" in done.stdout
    assert "(tested with this flowledger)" in done.stdout
    assert f"{sqlite_uri}  (FLOWLEDGER_TRACKING_URI)" in done.stdout
    assert done.stdout.isascii()


def test_the_doctor_says_what_to_do_about_a_database_of_another_mlflow(
    sqlite_uri: str, tmp_path: Path
) -> None:
    store(sqlite_uri, a_call())
    change(sqlite_uri, UPGRADED)
    done = run("doctor", folder=tmp_path, FLOWLEDGER_TRACKING_URI=sqlite_uri)
    what, _, do = ADVICE.partition(". ")
    shown = " ".join(done.stdout.split())
    assert (1, True, True) == (done.returncode, f"1. {what}" in shown, do in shown)
    assert "f4a9b2c7d1e6 (not supported by this flowledger)" in done.stdout


def test_the_doctor_finds_a_host_nobody_used_well(tmp_path: Path) -> None:
    done = run("doctor", folder=tmp_path)
    assert 0 == done.returncode
    assert "nothing is stored yet" in done.stdout
    assert [] == list(tmp_path.iterdir())


def test_the_doctor_counts_what_waits_and_says_how_to_ship_it(
    sqlite_uri: str, tmp_path: Path
) -> None:
    journal(sqlite_uri, tmp_path, encode(a_call()), encode(a_call()))
    done = run("doctor", folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    assert 1 == done.returncode
    assert re.search(r"1\. 2 records \(.*\) wait for .*, and no collector runs", done.stdout)
    assert "flowledger collect --once" in done.stdout


def test_what_the_doctor_prescribes_helps(sqlite_uri: str, tmp_path: Path) -> None:
    journal(sqlite_uri, tmp_path, encode(a_call()))
    run("collect", "--once", folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    done = run("doctor", folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    assert (0, True) == (done.returncode, "All is well." in done.stdout)


def test_a_collector_that_drains_ships_what_waits_before_it_leaves(
    sqlite_uri: str, tmp_path: Path
) -> None:
    journal(sqlite_uri, tmp_path, encode(a_call()), encode(a_call()))
    with closing(sqlite3.connect(sqlite_uri.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN EXCLUSIVE")
        process = subprocess.Popen(
            [sys.executable, "-m", "flowledger", "collect", "--drain", "60"],
            cwd=tmp_path,
            env=clean_environment(tmp_path, MLFLOW_TRACKING_URI=sqlite_uri),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert any("locked" in line for line in process.stderr)  # so it is backing off
        process.terminate()
        other.rollback()
    assert (0, "") == (process.wait(90), process.communicate()[1].partition("not empty")[1])
    done = run("recent", "--json", folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    assert 2 == len(json.loads(done.stdout))


def test_the_doctor_looks_at_every_destination(sqlite_uri: str, tmp_path: Path) -> None:
    journal("sqlite:////elsewhere/other.db", tmp_path, encode(a_call()))
    done = run("doctor", "--json", folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    report = json.loads(done.stdout)
    assert [(sqlite_uri, 0), ("sqlite:////elsewhere/other.db", 1)] == [
        (one["place"], one["waiting_records"]) for one in report["journals"]
    ]
    assert [True] == [
        "wait for sqlite:////elsewhere/other.db" in p["what"] for p in report["problems"]
    ]


def test_the_doctor_tells_what_was_rejected_and_why(sqlite_uri: str, tmp_path: Path) -> None:
    journal(sqlite_uri, tmp_path, encode(a_call(id="not hex")), b"no record at all")
    run("collect", "--once", folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    done = run("doctor", "--json", folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    [state] = json.loads(done.stdout)["journals"]
    assert (1, 2) == (done.returncode, state["rejected"])
    assert any("32 characters" in reason for reason in state["rejected_reasons"])
    assert Path(state["rejected_folder"]).is_dir()


def test_the_doctor_tells_what_had_no_room(sqlite_uri: str, tmp_path: Path) -> None:
    payloads = [encode(a_call(response="x" * 60_000)) for _ in range(30)]
    journal(sqlite_uri, tmp_path, *payloads, max_bytes=1 << 20)
    done = run("doctor", "--json", folder=tmp_path, MLFLOW_TRACKING_URI=sqlite_uri)
    report = json.loads(done.stdout)
    [state] = report["journals"]
    assert 30 == state["dropped"] + state["waiting_records"]
    assert state["dropped"] > 0
    assert any("FLOWLEDGER_JOURNAL_MAX_BYTES" in problem["do"] for problem in report["problems"])


def test_the_doctor_tells_the_last_error_of_shipping(tmp_path: Path) -> None:
    uri = "postgresql://ana:secret@127.0.0.1:1/x"
    journal(uri, tmp_path, encode(a_call()))
    run("collect", "--once", "--timeout", "0", folder=tmp_path, MLFLOW_TRACKING_URI=uri)
    done = run("doctor", folder=tmp_path, MLFLOW_TRACKING_URI=uri)
    assert 1 == done.returncode
    assert re.search(r"1 records \(.*\) wait for postgresql://ana@.*did not take them", done.stdout)
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_the_doctor_does_not_wait_for_a_store_that_says_nothing(
    scheme: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"{scheme}://ana:secret@127.0.0.1:{silent.getsockname()[1]}/x"
        done = run("doctor", folder=tmp_path, MLFLOW_TRACKING_URI=uri)
    assert 1 == done.returncode
    assert "did not answer within 4 seconds" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_the_doctor_names_the_variable_that_switched_recording_off(tmp_path: Path) -> None:
    done = run("doctor", folder=tmp_path, MLFLOW_ENABLE_TRACKING="No")
    assert "recording is off, switched off by MLFLOW_ENABLE_TRACKING=No" in done.stdout


def test_the_doctor_says_what_is_wrong_with_a_setting(tmp_path: Path) -> None:
    done = run("doctor", folder=tmp_path, FLOWLEDGER_STORE_AS="everything")
    assert 1 == done.returncode
    assert "store_as='everything': use one of run+trace, run, trace, ledger" in done.stdout


def test_the_doctor_says_that_a_home_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    done = run("doctor", folder=tmp_path)
    assert 1 == done.returncode
    assert "journals cannot be written" in done.stdout


def test_the_doctor_survives_a_journal_folder_that_makes_no_sense(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "journal" / "odd"
    folder.mkdir(parents=True)
    (folder / "destination.json").write_bytes(b"\xff{")
    (folder / "x.journal").write_bytes(b"\0" * 2000)
    done = run("doctor", folder=tmp_path)
    assert (1, "") == (done.returncode, done.stderr)
    assert f"{folder / 'destination.json'} cannot be read" in done.stdout


def test_the_doctor_says_which_packages_a_collector_lacks(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    done = run("doctor", "--json", folder=tmp_path, FLOWLEDGER_COLLECTOR_PYTHON=python)
    report = json.loads(done.stdout)
    assert ["mlflow", "sqlalchemy", "genai_prices", "splintr"] == report["missing_packages"]
    assert "pip install 'flowledger[server]'" in report["problems"][0]["do"]
