"""Somebody who opens a document beside its example and follows it: block by block, as printed."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flowledger.testing.llm import StubLLM
from tests.seeds import code

__all__ = ["Page", "Stranger", "files_of"]

EXAMPLES = Path(__file__).parents[2] / "examples"
READ = """
import contextlib, io, json, sys
namespace = {"__name__": "__main__"}
pages = []
first, last, *blocks = json.load(sys.stdin)
exec(first, namespace)
for number, text in blocks:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text, f"block {number}", "exec"), namespace)
    try:
        response = json.loads(json.dumps(namespace.get("response")))
    except TypeError:
        response = None
    pages.append([number, printed.getvalue(), response])
exec(last, namespace)
print(json.dumps(pages))
"""


class Page(NamedTuple):
    """What a block printed, and what `response` was after it."""

    printed: str
    response: Any


class Stranger:
    """A reader of one document, in the folder of its example, with the stub for a provider.

    Args:
        name: of the document and the example.
        home: an empty folder for journals and state.
        stub: answers for OpenAI and Anthropic.
        environ: what else is set.
    """

    def __init__(self, name: str, home: Path, stub: StubLLM, environ: Mapping[str, str]) -> None:
        self.name = name
        self.folder = EXAMPLES / name
        self.environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "default",
            "FLOWLEDGER_HOME": str(home),
            "OPENAI_BASE_URL": stub.url,
            "OPENAI_API_KEY": "stub",
            "ANTHROPIC_BASE_URL": stub.root,
            "ANTHROPIC_API_KEY": "stub",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
            **environ,
        }

    def reads(
        self,
        numbers: Sequence[int],
        first: str = "",
        last: str = "",
        changed: Mapping[str, str] | None = None,
    ) -> dict[int, Page]:
        """Type these blocks of the document into one Python, one after the other.

        Args:
            numbers: of the blocks.
            first, last: what the document leaves to the reader.
            changed: texts, such as hosts, that stand for others in every block.
        """
        blocks = [(number, self.block(number, changed)) for number in numbers]
        said = self.runs([sys.executable, "-c", READ], json.dumps([first, last, *blocks]))
        pages = json.loads(said.splitlines()[-1])
        return {number: Page(printed, response) for number, printed, response in pages}

    def block(self, number: int, changed: Mapping[str, str] | None = None) -> str:
        """The text of a block, with some texts changed, each of which must be in it."""
        text = code(self.name, number)
        for before, after in (changed or {}).items():
            text = text.replace(before, after)
        return text

    def shell(self, commands: str) -> str:
        """Type commands into a shell that stops at the first that fails; what they print."""
        return self.runs(["bash", "-euo", "pipefail", "-c", commands])

    def python(self, program: str) -> str:
        """Run a program; what it prints."""
        return self.runs([sys.executable, "-c", program])

    def runs(self, command: Sequence[str], typed: str = "", seconds: float = 180) -> str:
        """Run a command; what it prints."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ,
            input=typed,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout


def files_of(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
