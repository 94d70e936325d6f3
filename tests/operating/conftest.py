"""Fixtures of the tests of operating, those of the faults' host among them."""

from tests.faults.conftest import host

__all__ = ["host"]
