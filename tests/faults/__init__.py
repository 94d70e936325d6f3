"""Faults that really happen, to processes that really run."""

import pytest

pytest.register_assert_rewrite("tests.faults.processes")
