"""What tests need of the machine: without it they are skipped with a reason, and fail in CI."""

import os
import shutil
from typing import NoReturn

import pytest

__all__ = ["cannot_run", "need_program"]


def need_program(name: str, package: str = "") -> None:
    """Go on when a program is installed; `package` is Debian's, where it has another name."""
    if shutil.which(name) is None:
        cannot_run(f"{name} is not installed: apt-get install {package or name}")


def cannot_run(reason: str) -> NoReturn:
    """Leave a test that cannot run here; nothing is left out in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
