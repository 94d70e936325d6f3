"""The five documents the product comes from, read as they are, block by block.

They lie beside the checkout, in `../shared/seeds`; `FLOWLEDGER_SEEDS` names another folder.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from tests.needs import cannot_run

__all__ = ["DOCUMENTS", "Block", "blocks", "code"]

ROOT = Path(__file__).parent.parent
SEEDS = Path(os.environ.get("FLOWLEDGER_SEEDS", ROOT.parent / "shared" / "seeds"))
DOCUMENTS = ("tidyllm", "threads_agent", "intent_detection", "technoshare_commentator", "aiflow")

_block = re.compile(r"^([ \t]*)```(\w*)[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block: its number in the document from 1, its language, and its text."""

    number: int
    language: str
    text: str


def blocks(document: str) -> list[Block]:
    """Every fenced block of a document, in order; a test without the documents says so."""
    page = SEEDS / f"{document}.md"
    if not page.is_file():
        cannot_run(f"{page.name} is not in {SEEDS}: FLOWLEDGER_SEEDS names the folder that has it")
    found = _block.findall(page.read_text(encoding="utf-8"))
    return [Block(number, *_plain(*block)) for number, block in enumerate(found, 1)]


def code(document: str, number: int) -> str:
    """The text of one block as it is printed."""
    return blocks(document)[number - 1].text


def _plain(indent: str, language: str, text: str) -> tuple[str, str]:
    lines = (line.removeprefix(indent) for line in text.splitlines(keepends=True))
    return language or "text", "".join(lines)
