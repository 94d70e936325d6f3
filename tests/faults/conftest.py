"""Fixtures of the fault tests: a host whose processes are all gone when the test is over."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.processes import Host


@pytest.fixture
def host(tmp_path: Path, home: Path) -> Iterator[Host]:
    """A host of this test's own."""
    host = Host(tmp_path, home)
    yield host
    host.clean_up()
