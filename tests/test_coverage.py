"""Every code block of the five documents is accounted for in `docs/coverage.md`."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.seeds import DOCUMENTS, blocks

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "coverage.md"

_row = re.compile(r"^\| (\d+) \|.*\|(.*)\|$", re.MULTILINE)
_test = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def rows(document: str) -> list[tuple[int, str]]:
    """The blocks that the page lists for a document, each with what proves it."""
    sections = PAGE.read_text().split("\n## ")
    section = next(text for text in sections if text.startswith(f"{document}\n"))
    return [(int(number), proof) for number, proof in _row.findall(section)]


@cache
def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_of_a_document_has_one_row(document: str) -> None:
    assert [block.number for block in blocks(document)] == [number for number, _ in rows(document)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_row_names_tests_that_are_there(document: str) -> None:
    for number, proof in rows(document):
        named = _test.findall(proof)
        assert named, f"block {number} of {document} names no test"
        missing = [test for path, test in named if test and test not in names_in(path)]
        assert [] == missing, f"block {number} of {document}"
