"""Every code block of the five documents is accounted for in `docs/coverage.md`."""

import pytest

from tests.documents.seeds import blocks
from tests.test_coverage import DOCUMENTS, rows


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_of_a_document_has_one_row(document: str) -> None:
    assert [block.number for block in blocks(document)] == [number for number, _ in rows(document)]
