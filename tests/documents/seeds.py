"""The five documents the product comes from, read as they are, block by block.

They are in `../shared/seeds` next to the checkout; `FLOWLEDGER_SEEDS` names another folder.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from tests.test_coverage import DOCUMENTS

__all__ = ["SEEDS", "Block", "blocks", "code", "missing_pages", "page"]

ROOT = Path(__file__).parent.parent.parent
SEEDS = Path(os.environ.get("FLOWLEDGER_SEEDS") or ROOT.parent / "shared" / "seeds")

_block = re.compile(r"^([ \t]*)```(\w*)[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block: its number in the document from 1, its language, and its text."""

    number: int
    language: str
    text: str


def missing_pages() -> list[str]:
    """Return the names of the documents' files that are not in the folder."""
    return [f"{name}.md" for name in DOCUMENTS if not _path(name).is_file()]


def page(document: str) -> str:
    """Return the whole text of a document."""
    return _path(document).read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    """Return every fenced block of a document, in order."""
    found = _block.findall(page(document))
    return [Block(number, *_plain(*block)) for number, block in enumerate(found, 1)]


def code(document: str, number: int) -> str:
    """Return the text of one block as it is printed."""
    return blocks(document)[number - 1].text


def _path(document: str) -> Path:
    return SEEDS / f"{document}.md"


def _plain(indent: str, language: str, text: str) -> tuple[str, str]:
    lines = (line.removeprefix(indent) for line in text.splitlines(keepends=True))
    return language or "text", "".join(lines)
