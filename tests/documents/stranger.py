"""A reader of a document who follows it in the folder of its example, block by block."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flowledger.testing.llm import StubLLM
from tests.documents.seeds import code
from tests.examples.projects import Project, stub_settings

__all__ = ["Page", "Stranger"]

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


class Stranger(Project):
    """A reader of one document, in the folder of its example, with the stub for a provider.

    Args:
        name: of the document and the example.
        place: where data goes.
        stub: answers for OpenAI and Anthropic.
        environ: what else is set.
    """

    def __init__(self, name: str, place: Path, stub: StubLLM, environ: Mapping[str, str]) -> None:
        self.name = name
        super().__init__(name, place, {**stub_settings(stub), **environ})

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
        said = self.run("python", "-c", READ, stdin=json.dumps([first, last, *blocks]))
        pages = json.loads(said.splitlines()[-1])
        return {number: Page(printed, response) for number, printed, response in pages}

    def block(self, number: int, changed: Mapping[str, str] | None = None) -> str:
        """The text of a block, with some texts changed."""
        text = code(self.name, number)
        for before, after in (changed or {}).items():
            text = text.replace(before, after)
        return text

    def shell(self, commands: str) -> str:
        """Type commands into a shell that stops at the first that fails; what they print."""
        return self.run("bash", "-euo", "pipefail", "-c", commands)
