"""Running an example: its folder is the working directory, its data somewhere else."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

from flowledger.testing.llm import StubLLM

__all__ = ["Project", "eventually", "stub_settings"]

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
T = TypeVar("T")
Environ: TypeAlias = Mapping[str, str]
NOTHING: Environ = {}


class Project:
    """An example's folder and the environment it runs in.

    Args:
        name: of the folder.
        place: where its data goes.
        environ: what it needs besides.
    """

    def __init__(self, name: str, place: Path, environ: Environ) -> None:
        self.path = self.folder(name)
        self.home = place / "home"
        self.environ = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(place),
            "PYTHONPATH": str(self.path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "default",
            "FLOWLEDGER_HOME": str(self.home),
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            **environ,
        }
        self._before = self._files()

    @staticmethod
    def folder(name: str) -> Path:
        """Where an example lies."""
        return ROOT / "examples" / name

    def run(
        self, *command: str, stdin: str = "", cwd: Path | None = None, environ: Environ = NOTHING
    ) -> str:
        """Run a command to its end; what it printed."""
        done = subprocess.run(
            command,
            cwd=cwd or self.path,
            env={**self.environ, **environ},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert 0 == done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def python(self, program: str) -> str:
        """Run a program; what it prints."""
        return self.run("python", "-c", program)

    def start(
        self, *command: str, cwd: Path | None = None, environ: Environ = NOTHING
    ) -> "subprocess.Popen[bytes]":
        """Start a command and leave it running; what it says is in a log beside its data."""
        with (self.home.parent / "started.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=cwd or self.path,
                env={**self.environ, **environ},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def added(self) -> list[Path]:
        """Files in the example's folder that were not there at first."""
        return sorted(self._files() - self._before)

    def _files(self) -> set[Path]:
        return {path for path in self.path.rglob("*") if "__pycache__" not in path.parts}


def stub_settings(stub: StubLLM) -> dict[str, str]:
    """Return the variables that let the stub answer for OpenAI and Anthropic."""
    return {
        "OPENAI_BASE_URL": stub.url,
        "OPENAI_API_KEY": "stub",
        "ANTHROPIC_BASE_URL": stub.root,
        "ANTHROPIC_API_KEY": "stub",
    }


def eventually(look: Callable[[], T | None], seconds: float = 240.0) -> T:
    """What `look` finds as soon as it finds something: what another process does takes a while."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)
    return found
