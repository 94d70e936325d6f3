"""`flowledger run`: calls are recorded without a change of the code, and nothing else changes."""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowledger.integrations.site import sitecustomize
from flowledger.journal import Segment
from flowledger.records import Call, decode
from flowledger.testing.llm import StubLLM
from tests.servers import answers_at, free_port

FLOWLEDGER = Path(sys.executable).parent / "flowledger"
APP = """
from openai import OpenAI
ask = {"messages": [{"role": "user", "content": "Hi"}]}
OpenAI().chat.completions.create(model="gpt-4o-mini", **ask)
"""
BOTH = (
    APP
    + """
from anthropic import Anthropic
Anthropic().messages.create(model="claude-sonnet-4-5", max_tokens=9, **ask)
"""
)
WEB = """
from openai import OpenAI
client = OpenAI()
def app(environ, start_response):
    ask = [{"role": "user", "content": environ["PATH_INFO"]}]
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=ask)
    start_response("200 OK", [("content-type", "text/plain")])
    return [answer.choices[0].message.content.encode()]
"""


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


@pytest.fixture
def environ(stub: StubLLM, tmp_path: Path) -> dict[str, str]:
    """An application's, with the stub in place of both providers."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "both.py").write_text(BOTH)
    return {
        **os.environ,
        "FLOWLEDGER_HOME": str(tmp_path / "home"),
        "FLOWLEDGER_COLLECTOR": "off",
        "OPENAI_API_KEY": "stub",
        "OPENAI_BASE_URL": stub.url,
        "ANTHROPIC_API_KEY": "stub",
        "ANTHROPIC_BASE_URL": stub.root,
        "PYTHONWARNINGS": "error,ignore::ResourceWarning",
    }


def run(environ: dict[str, str], *words: object, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FLOWLEDGER, "run", *map(str, words)],
        cwd=Path(environ["FLOWLEDGER_HOME"]).parent,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        **how,
    )


def recorded(environ: dict[str, str]) -> list[Call]:
    found = []
    for path in Path(environ["FLOWLEDGER_HOME"]).glob("journal/*/*.journal"):
        with Segment(path) as segment:
            found += [decode(piece.payload or b"") for piece in segment.read().pieces]
    return [record for record in found if isinstance(record, Call)]


def operations(environ: dict[str, str]) -> list[str]:
    return sorted(call.operation for call in recorded(environ))


@pytest.mark.parametrize("words", [("--", sys.executable, "both.py"), ("-m", "both")])
def test_clients_of_both_packages_are_recorded(
    environ: dict[str, str], words: tuple[str, ...]
) -> None:
    done = run(environ, *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert operations(environ) == ["chat.completions", "messages"]


def test_asynchronous_and_other_clients_and_those_of_a_child_process_are_recorded(
    environ: dict[str, str],
) -> None:
    code = """
import asyncio, importlib.util, subprocess, sys
assert importlib.util.find_spec("openai")
import openai
ask = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
openai.chat.completions.create(**ask)
class Own(openai.OpenAI):
    pass
Own().embeddings.create(model="text-embedding-3-small", input="a")
async def main():
    async with openai.AsyncOpenAI() as client:
        await client.chat.completions.create(**ask)
asyncio.run(main())
subprocess.run([sys.executable, "app.py"], check=True)
"""
    done = run(environ, "--", sys.executable, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert operations(environ) == ["chat.completions"] * 3 + ["embeddings"]


def test_a_client_that_is_wrapped_as_well_is_recorded_once(environ: dict[str, str]) -> None:
    code = "import flowledger" + APP.replace("OpenAI()", "flowledger.wrap(OpenAI())")
    assert run(environ, "--", sys.executable, "-c", code).returncode == 0
    assert operations(environ) == ["chat.completions"]


def test_every_worker_of_gunicorn_is_recorded(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "web.py").write_text(WEB)
    port = free_port()
    words = ["-w", "2", "-b", f"127.0.0.1:{port}", "--log-level", "error", "--preload", "web:app"]
    # gunicorn's own warnings are not ours to mend.
    quiet = {**environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        [FLOWLEDGER, "run", "--", sys.executable, "-m", "gunicorn", *words], cwd=tmp_path, env=quiet
    ) as process:
        try:
            answers_at(f"http://127.0.0.1:{port}/", process)
        finally:
            process.terminate()
    assert process.returncode == 0
    assert set(operations(environ)) == {"chat.completions"}


def test_exit_code_input_output_and_arguments_are_the_programs_own(
    environ: dict[str, str],
) -> None:
    code = (
        "import sys; print(sys.argv[1:], sys.stdin.read()); print(3, file=sys.stderr); sys.exit(7)"
    )
    done = run(environ, "--", sys.executable, "-c", code, "--help", "-x", "a b", input="typed")
    assert (done.returncode, done.stdout, done.stderr) == (
        7,
        "['--help', '-x', 'a b'] typed\n",
        "3\n",
    )


def test_a_signal_reaches_the_program_and_ends_it_as_it_would(environ: dict[str, str]) -> None:
    code = "import signal; print(signal.getsignal(15), flush=True); signal.pause()"
    with subprocess.Popen(
        [FLOWLEDGER, "run", "--", sys.executable, "-c", code],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        process.terminate()
    assert process.returncode == -signal.SIGTERM


def test_a_broken_pipe_ends_a_program_that_is_no_python(environ: dict[str, str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run([FLOWLEDGER, "run", "--", "yes"], env=environ, stdout=writes, timeout=60)
    os.close(writes)
    assert done.returncode == -signal.SIGPIPE


def test_the_programs_own_sitecustomize_and_path_stay(
    environ: dict[str, str], tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import builtins; builtins.greeting = 'hello'")
    code = "import sys, sitecustomize; print(greeting, sitecustomize.__file__, sys.path[1:])"
    plain = {**environ, "PYTHONPATH": str(own)}
    expected = subprocess.run(
        [sys.executable, "-c", code], env=plain, capture_output=True, text=True, cwd=tmp_path
    )
    done = run(plain, "--", sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == (expected.stdout, expected.stderr)
    assert done.stdout.startswith("hello ")


def test_a_broken_sitecustomize_is_told_as_python_tells_it(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("1 / 0")
    plain = {**environ, "PYTHONPATH": str(tmp_path)}
    done = run(plain, "--", sys.executable, "app.py")
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
    assert operations(environ) == ["chat.completions"]


def test_a_program_without_such_clients_loads_nothing_of_ours(environ: dict[str, str]) -> None:
    code = "import sys, json; print(sorted(m for m in sys.modules if 'flowledger' in m))"
    assert run(environ, "--", sys.executable, "-c", code).stdout == "[]\n"


def test_switched_off_nothing_is_recorded(environ: dict[str, str]) -> None:
    off = {**environ, "FLOWLEDGER_ENABLED": "false"}
    assert run(off, "--", sys.executable, "app.py").returncode == 0
    assert recorded(environ) == []


def test_a_python_that_has_no_flowledger_runs_the_program_with_a_warning(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "openai.py").write_text("print('another openai')")
    done = run(environ, "--", sys.executable, "-c", "import openai")
    assert done.stdout == "another openai\n"
    assert "openai is not recorded: " in done.stderr


def test_a_failed_call_is_recorded_and_raises_the_packages_own_error(
    environ: dict[str, str],
) -> None:
    code = """
import openai
try:
    openai.OpenAI(max_retries=0).chat.completions.create(
        model="gpt-4o?status=401", messages=[{"role": "user", "content": "Hi"}]
    )
except openai.AuthenticationError as exc:
    print(exc.status_code)
"""
    assert run(environ, "--", sys.executable, "-c", code).stdout == "401\n"
    assert [call.outcome.error_type for call in recorded(environ)] == ["AuthenticationError"]


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/", 126)])
def test_a_program_that_cannot_start_is_told(
    environ: dict[str, str], program: str, code: int
) -> None:
    done = run(environ, "--", program)
    assert (done.returncode, program in done.stderr) == (code, True)


@pytest.mark.parametrize("function", sitecustomize.INSTRUMENTS.values())
def test_what_instruments_a_package_is_there(function: str) -> None:
    module, _, name = function.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
