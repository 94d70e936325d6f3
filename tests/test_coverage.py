"""`docs/coverage.md` names tests that exist, and `make test` alone runs one for every row.

`tests/documents` compares the page with the documents themselves.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

__all__ = ["DOCUMENTS", "rows"]

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "coverage.md"
DOCUMENTS = ("tidyllm", "threads_agent", "intent_detection", "technoshare_commentator", "aiflow")
BY_DOCUMENTS = "tests/documents/"  # which only `make documents` runs

_row = re.compile(r"^\| (\d+) \|.*\|(.*)\|$", re.MULTILINE)
_test = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def rows(document: str) -> list[tuple[int, str]]:
    """The blocks that the page lists for a document, each with what proves it."""
    return [(int(number), proof) for number, proof in _row.findall(_sections()[document])]


def _sections() -> dict[str, str]:
    _, *sections = PAGE.read_text().split("\n## ")
    return {name: text for name, _, text in (section.partition("\n") for section in sections)}


@cache
def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_page_has_one_section_for_each_document() -> None:
    assert list(DOCUMENTS) == list(_sections())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_rows_of_a_document_are_numbered_without_gaps(document: str) -> None:
    numbers = [number for number, _ in rows(document)]
    assert numbers
    assert list(range(1, len(numbers) + 1)) == numbers


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_row_names_tests_that_are_there(document: str) -> None:
    for number, proof in rows(document):
        named = _test.findall(proof)
        missing = [test for path, test in named if test and test not in names_in(path)]
        assert [] == missing, f"block {number} of {document}"
        alone = [path for path, _ in named if not path.startswith(BY_DOCUMENTS)]
        assert alone, f"block {number} of {document} names no test that `make test` runs"
