"""Tests of the store, of sums, of evidence, of backups and of answers, over calls kept by month."""

import pytest

from tests.faults.processes import slow
from tests.operating.test_backup import (
    empty,
    filled,
    test_a_backup_restored_into_an_empty_database_holds_everything,
    test_the_chain_of_evidence_holds_after_a_restore,
)
from tests.test_erasure import (
    test_a_purge_takes_content_and_leaves_what_is_counted,
    test_everything_old_can_go_with_its_counts,
)
from tests.test_evidence_proof import (
    test_a_row_that_is_changed_in_any_table_is_found_and_named,
    test_a_row_that_is_removed_from_any_table_is_found_and_named,
)
from tests.test_partitions import by_month
from tests.test_questions import (
    test_every_question_runs_and_answers_the_columns_of_its_row,
    test_recent_calls_come_newest_first_and_so_many_as_asked,
    test_the_steps_of_a_call_in_a_job_are_those_of_its_trace,
)
from tests.test_rollup import sink, test_corrections_and_deletions_keep_the_sums_true

__all__ = [
    "empty",
    "filled",
    "sink",
    "test_a_backup_restored_into_an_empty_database_holds_everything",
    "test_a_purge_takes_content_and_leaves_what_is_counted",
    "test_a_row_that_is_changed_in_any_table_is_found_and_named",
    "test_a_row_that_is_removed_from_any_table_is_found_and_named",
    "test_corrections_and_deletions_keep_the_sums_true",
    "test_every_question_runs_and_answers_the_columns_of_its_row",
    "test_everything_old_can_go_with_its_counts",
    "test_recent_calls_come_newest_first_and_so_many_as_asked",
    "test_the_chain_of_evidence_holds_after_a_restore",
    "test_the_steps_of_a_call_in_a_job_are_those_of_its_trace",
]

pytestmark = slow


@pytest.fixture
def database_uri(postgres_uri: str) -> str:
    """PostgreSQL alone, with the table of calls in months."""
    return by_month(postgres_uri)
