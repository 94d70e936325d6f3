"""`flowledger run`: a program whose clients are recorded without a change of its code."""

import os
import signal
import sys
from pathlib import Path

import click

from flowledger.integrations import site

FOLDER = Path(site.__file__).parent
# What a shell answers for a program that it cannot find, and for one that it may not start.
NOT_FOUND, NOT_STARTED = 127, 126


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("program", nargs=-1, type=click.UNPROCESSED, required=True)
def command(program: tuple[str, ...]) -> None:
    """Run a program and record the calls of its LLM clients.

    Clients of openai and anthropic are recorded as if each had been given to flowledger.wrap, in
    the program and in every Python process that it starts. Its threads start with the context of
    who started them, unless FLOWLEDGER_CARRY_THREADS says otherwise. The program takes the place of
    this one: its exit code, its signals, its input and its output are its own. Without a program,
    `-m MODULE` runs a module with this Python.

    \b
    Examples:
      flowledger run -- python app.py --port 8000
      flowledger run -m app
      flowledger run -- gunicorn app:app
    """
    words = [sys.executable, *program] if program[0] == "-m" else list(program)
    paths = [str(FOLDER), os.environ.get("PYTHONPATH", "")]
    # The program names no context of its own in its threads: nobody changed its code.
    carrying = {"FLOWLEDGER_CARRY_THREADS": "true", **os.environ}
    environ = {**carrying, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # Python ignores it, and what is ignored stays so for the program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvpe(words[0], words, environ)
    except FileNotFoundError:
        _fails(words[0], "no such program", NOT_FOUND)
    except OSError as exc:
        _fails(words[0], exc.strerror or str(exc), NOT_STARTED)


def _fails(program: str, why: str, code: int) -> None:
    click.echo(f"flowledger run: {program}: {why}", err=True)
    sys.exit(code)
