"""`make documents`: the blocks of the five documents run as they are printed."""

from collections.abc import Iterator

import pytest

from flowledger.testing.llm import StubLLM
from tests.documents.seeds import SEEDS, missing_pages


def pytest_configure() -> None:
    """Stop before any test when the documents are not there.

    Raises:
        pytest.UsageError: with the folder where they are looked for.
    """
    if missing := missing_pages():
        raise pytest.UsageError(
            f"put {', '.join(missing)} into {SEEDS}, or name the folder that has them in"
            " FLOWLEDGER_SEEDS"
        )


@pytest.fixture(scope="session")
def stub() -> Iterator[StubLLM]:
    """One stand-in for all providers."""
    with StubLLM() as server:
        yield server
