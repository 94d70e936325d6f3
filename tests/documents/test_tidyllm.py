"""tidyllm's document: its blocks as they are printed, over PostgreSQL."""

import ast
import re
from collections.abc import Iterator

import pytest

from flowledger.testing.llm import StubLLM
from tests.conftest import postgres_database
from tests.documents.seeds import code
from tests.documents.stranger import Page, Stranger
from tests.examples.test_tidyllm import asked_by, missing_fields, record_shape
from tests.server_client import rows

# The document waits a second between requests, and leaves these questions to its reader.
READER = """
import time
time.sleep = lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.01))
questions = ["What do our docs say about retention?", "Why?"]
"""


@pytest.fixture(scope="module")
def database(postgres_server: str) -> Iterator[str]:
    with postgres_database(postgres_server) as uri:
        yield uri


@pytest.fixture(scope="module")
def stranger(database: str, stub: StubLLM, tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    home = tmp_path_factory.mktemp("home")
    return Stranger("tidyllm", home, stub, {"FLOWLEDGER_TRACKING_URI": database})


@pytest.fixture(scope="module")
def pages(stranger: Stranger) -> dict[int, Page]:
    """What each Python block of the document did, typed one after the other."""
    return stranger.reads((1, 2, 3, 4, 5, 6, 8, 11, 13, 14, 15, 16), first=READER)


def test_a_chat_is_recorded_with_user_and_reason(pages: dict[int, Page], database: str) -> None:
    [call] = asked_by(database, "your_user_123")
    assert ("business_query", "claude-3-sonnet") == (call.audit_reason, call.model)
    assert pages[1].response["token_usage"]["total"] == call.total_tokens


def test_all_four_modes_are_recorded(pages: dict[int, Page], database: str) -> None:
    modes = [call.tags["chat_type"] for call in asked_by(database, "user123")]
    assert ["direct", "dspy", "rag", "hybrid"] == modes


def test_the_service_says_that_it_is_there(pages: dict[int, Page]) -> None:
    for block in (3, 13):
        assert "Available: True\nConnected: True\n" == pages[block].printed


def test_a_request_logged_by_hand_is_recorded(pages: dict[int, Page], database: str) -> None:
    [call] = asked_by(database, "custom_user")
    assert ("custom-model", 10, 20, 30, 150.0) == (
        call.model_asked,
        call.input_tokens,
        call.output_tokens,
        call.total_tokens,
        call.latency_ms,
    )
    assert ("custom_session", "manual_test") == (call.session_id, call.audit_reason)


def test_the_viewer_prints_the_records_so_far(pages: dict[int, Page]) -> None:
    users = re.findall("User ID: (.*)", pages[5].printed)
    assert ["custom_user", "user123", "user123", "user123", "user123"] == users


def test_the_checker_reports_what_is_missing_so_far(pages: dict[int, Page]) -> None:
    found = missing_fields(pages[6].printed)
    assert "=== MLflow Evidence: 8 calls ===" == pages[6].printed.splitlines()[0]
    # Five chats named no session and the four modes no reason, nor did what searched passages for
    # them; and nobody knows custom-model's price.
    expected = {"session_id is missing": 7, "audit_reason is missing": 6}
    assert {**expected, "the price is not known": 1} == found


def test_the_tools_run_as_scripts(pages: dict[int, Page], stranger: Stranger) -> None:
    printed = stranger.shell(stranger.block(7))
    assert 5 == printed.count("=== MLflow Record ===")
    assert 1 == printed.count("=== MLflow Evidence: ")


def test_the_answer_has_the_documents_audit_trail(pages: dict[int, Page]) -> None:
    shown = ast.literal_eval(ast.unparse(ast.parse(code("tidyllm", 8)).body[-1]))
    told = pages[8].response
    assert set(shown) <= set(told)
    assert set(shown["audit_trail"]) <= set(told["audit_trail"])
    assert shown["token_usage"].keys() == told["token_usage"].keys()
    same = ("user_id", "audit_reason", "model_id", "temperature", "max_tokens", "success", "error")
    assert {name: shown["audit_trail"][name] for name in same} == {
        name: told["audit_trail"][name] for name in same
    }


def test_a_record_is_printed_in_the_documentsrecord_shape(
    pages: dict[int, Page], stranger: Stranger
) -> None:
    printed = stranger.python(
        "import tidyllm\n"
        "tidyllm.chat('Explain machine learning', user_id='demo_user_123',"
        " audit_reason='learning_session')\n" + stranger.block(5)
    )
    first = "=== MLflow Record ===" + printed.split("=== MLflow Record ===")[1]
    assert record_shape(code("tidyllm", 9)) == record_shape(first)


def test_the_documents_own_tests_pass(pages: dict[int, Page], stranger: Stranger) -> None:
    # The second of its commands is typed in the folder that the first went to.
    printed = stranger.shell(stranger.block(10))
    assert ["ok"] * 5 == [line.partition(":")[0] for line in printed.splitlines()]


def test_the_manual_verification_shows_its_own_chat_first(pages: dict[int, Page]) -> None:
    assert "verification_user" == re.findall("User ID: (.*)", pages[11].printed)[0]


def test_what_the_picture_shows_ends_in_postgresql(pages: dict[int, Page], database: str) -> None:
    query = (
        "SELECT key, value FROM params JOIN runs USING (run_uuid) JOIN experiments"
        " USING (experiment_id) WHERE experiments.name = 'tidyllm' AND run_uuid ="
        " (SELECT run_uuid FROM tags WHERE key = 'user_id' AND value = 'your_user_123')"
    )
    params = {row["key"]: row["value"] for row in rows(database, query)}
    assert ("claude-3-sonnet", "claude-3-sonnet", "business_query", "0.7", "4000") == tuple(
        params[name] for name in ("model", "model_id", "audit_reason", "temperature", "max_tokens")
    )
    metrics = rows(database, f"SELECT key, value FROM metrics WHERE run_uuid IN ({_of_user})")
    found = {row["key"]: row["value"] for row in metrics}
    assert found["latency_ms"] == found["processing_time_ms"]
    assert (1.0, found["input_tokens"] + found["output_tokens"]) == (
        found["success"],
        found["total_tokens"],
    )


_of_user = "SELECT run_uuid FROM tags WHERE key = 'user_id' AND value = 'your_user_123'"


def test_a_user_that_is_named_is_in_the_record(pages: dict[int, Page], database: str) -> None:
    assert ["business_purpose"] == [
        call.audit_reason for call in asked_by(database, "required_user_id")
    ]


def test_a_conversation_keeps_its_session(pages: dict[int, Page], database: str) -> None:
    calls = asked_by(database, "advanced_user")
    assert ["conversation_turn_1", "conversation_turn_2"] == [call.audit_reason for call in calls]
    assert 1 == len({call.session_id for call in calls})
    assert ["1", "2"] == [str(call.tags["chat_turn"]) for call in calls]


def test_a_batch_of_users_is_recorded_user_by_user(pages: dict[int, Page], database: str) -> None:
    expected = [f"batch_processing_{n}" for n in (1, 2, 3)]
    for user in ("user_1", "user_2", "user_3"):
        assert expected == [call.audit_reason for call in asked_by(database, user)]
    users = re.findall("User ID: (.*)", pages[16].printed)
    assert ["user_3", "user_3", "user_3", "user_2", "user_2"] == users


def test_nothing_is_written_into_the_examples_folder(
    pages: dict[int, Page], stranger: Stranger
) -> None:
    assert [] == stranger.added()
