"""Child processes that measure: one line of JSON asks, one line of JSON answers.

The parent starts `python -m bench.children.NAME ARGUMENT`, where ARGUMENT is JSON, and asks by the
name of a command. The child calls `serve` with a function for each name.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec

__all__ = ["Child", "ChildFailed", "argument", "serve"]

LAST_WORDS = 2000
LEAVE_SECONDS = 10
ROOT = Path(__file__).resolve().parent.parent
# What could make a child speak to somebody, or set flowledger up in another way than we do here.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "OTEL_SDK_DISABLED": "false",
    "PYTHONWARNINGS": "ignore",
}
FOREIGN = ("FLOWLEDGER_", "MLFLOW_", "OTEL_", "PYTHON")


class ChildFailed(Exception):
    """A child died, or did not answer in time; the message holds its last words."""


class Child:
    """A process of `bench.children` that answers one question at a time.

    Args:
        name: module under `bench.children`.
        environ: variables it gets besides ours; others of flowledger, MLflow and OpenTelemetry
            are taken away.
        argument: what its `argument()` returns.
    """

    def __init__(
        self, name: str, environ: Mapping[str, str] | None = None, **argument: Any
    ) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"bench.children.{name}", _text(argument)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env={**clean_environment(), **(environ or {})},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def ask(self, command: str, timeout: float = 120, **arguments: Any) -> Any:
        """Have the child do something, and wait for what it says."""
        self.send(command, **arguments)
        return self.receive(timeout)

    def send(self, command: str, **arguments: Any) -> None:
        """Have the child do something without waiting for it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode([command, arguments]) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildFailed(f"{self.name} is gone: {self._last_words()}") from None

    def receive(self, timeout: float = 120) -> Any:
        """What the child says to the question sent before."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            why = "is gone" if ready else f"did not answer within {timeout:g} s"
            raise ChildFailed(f"{self.name} {why}: {self._last_words()}")
        return msgspec.json.decode(line)

    def close(self) -> None:
        """End the process and whatever it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-LAST_WORDS:]


def clean_environment() -> dict[str, str]:
    """The environment without anything that configures what we measure."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, **QUIET}


def argument() -> dict[str, Any]:
    """In a child: what it was started with."""
    found: dict[str, Any] = msgspec.json.decode(sys.argv[1])
    return found


def serve(**commands: Callable[..., Any]) -> None:
    """In a child: answer until the parent hangs up. What libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        command, arguments = msgspec.json.decode(line)
        answers.write(msgspec.json.encode(commands[command](**arguments)) + b"\n")


def _text(argument: dict[str, Any]) -> str:
    return msgspec.json.encode(argument).decode()
