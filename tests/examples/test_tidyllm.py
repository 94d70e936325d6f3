"""examples/tidyllm: its document's blocks as they are printed, over PostgreSQL."""

import ast
import json
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowledger.questions import Filters, Ledger, StoredCall
from flowledger.testing.llm import StubLLM
from tests.conftest import postgres_database
from tests.examples.projects import Project
from tests.examples.stranger import Page, Stranger
from tests.seeds import code
from tests.server_client import rows

NOWHERE = "postgresql://nobody@192.0.2.1:5432/vectorqa"  # RFC 5737: an address nobody has
# The document waits a second between requests, and leaves these questions to its reader.
READER = """
import time
time.sleep = lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.01))
questions = ["What do our docs say about retention?", "Why?"]
"""


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


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


def asked_by(database: str, user: str) -> list[StoredCall]:
    """The requests of a user, in the order they were made."""
    with Ledger(database) as ledger:
        runs = ledger.over(filters=Filters(user_id=user, kind="chat")).runs(100)
        return [ledger.call(run.id) for run in reversed(runs)]


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
    found = lacking(pages[6].printed)
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


def test_a_record_is_printed_in_the_documents_shape(
    pages: dict[int, Page], stranger: Stranger
) -> None:
    printed = stranger.python(
        "import tidyllm\n"
        "tidyllm.chat('Explain machine learning', user_id='demo_user_123',"
        " audit_reason='learning_session')\n" + stranger.block(5)
    )
    first = "=== MLflow Record ===" + printed.split("=== MLflow Record ===")[1]
    assert _shape(code("tidyllm", 9)) == _shape(first)


def _shape(record: str) -> list[str]:
    """A record without what is different each time: its time, its duration and its counts."""
    return [re.sub(r": [\d.:T-]+$", ": ...", line) for line in record.strip().splitlines()]


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


LOG = """
import json, sys
from tidyllm.infrastructure.tools.mlflow_evidence_checker import show_missing_evidence
from tidyllm.services import MLflowIntegrationService

service = MLflowIntegrationService()
for one in json.load(sys.stdin):
    service.log_llm_request(prompt="p", response="r", **one)
everybody, ana = service.statistics(), service.statistics(user_id="ana")
show_missing_evidence()
print(json.dumps([everybody, ana, service.health_check()]))
"""


@pytest.fixture
def other_database(postgres_server: str) -> Iterator[str]:
    with postgres_database(postgres_server) as uri:
        yield uri


def test_five_thousand_requests_add_up_as_by_hand(
    other_database: str, stub: StubLLM, tmp_path: Path
) -> None:
    chance = random.Random(7)
    requests = [_request(chance) for _ in range(5000)]
    environ = {"FLOWLEDGER_TRACKING_URI": other_database}
    stranger = Stranger("tidyllm", tmp_path, stub, environ)
    said = stranger.run("python", "-c", LOG, stdin=json.dumps(requests)).splitlines()
    everybody, ana, health = json.loads(said[-1])
    assert pytest.approx(_by_hand(requests)) == everybody
    assert pytest.approx(_by_hand([one for one in requests if one["user_id"] == "ana"])) == ana
    assert ("healthy", 5000, 0) == (health["status"], health["records"], health["lost"])
    assert {
        "user_id is missing": sum(one["user_id"] is None for one in requests),
        "session_id is missing": 5000,
        "audit_reason is missing": sum(one["audit_reason"] is None for one in requests),
        "the price is not known": sum(one["model"] == "custom-model" for one in requests),
    } == lacking("\n".join(said))


def lacking(printed: str) -> dict[str, int]:
    """What the checker said, by what is lacking."""
    found = re.findall(r"^  ([\w ]+): (\d+), such as", printed, re.MULTILINE)
    return {what: int(count) for what, count in found}


def _request(chance: random.Random) -> dict[str, Any]:
    return {
        "model": chance.choice(["gpt-4o", "gpt-4o", "custom-model"]),
        "processing_time": round(chance.lognormvariate(6, 1), 3),
        "token_usage": {"input": chance.randrange(3000), "output": chance.randrange(900)},
        "success": chance.random() < 0.9,
        "user_id": chance.choice(["ana", "ben", None]),
        "audit_reason": chance.choice(["support", None]),
    }


def _by_hand(requests: list[dict[str, Any]]) -> dict[str, Any]:
    """As somebody with the list of requests would count; gpt-4o costs $2.50 and $10 a million."""
    inputs = sum(one["token_usage"]["input"] for one in requests)
    outputs = sum(one["token_usage"]["output"] for one in requests)
    priced = [one["token_usage"] for one in requests if one["model"] == "gpt-4o"]
    return {
        "requests": len(requests),
        "success_rate": 100 * sum(one["success"] for one in requests) / len(requests),
        "avg_processing_time_ms": sum(one["processing_time"] for one in requests) / len(requests),
        "input_tokens": inputs,
        "output_tokens": outputs,
        "total_tokens": inputs + outputs,
        "cost_usd": sum(2.5 * one["input"] + 10 * one["output"] for one in priced) / 1e6,
        "requests_without_price": len(requests) - len(priced),
    }


START = """
import sys, time
begun = time.perf_counter()
import tidyllm
from tidyllm.services import MLflowIntegrationService
service = MLflowIntegrationService()
logged = service.log_llm_request("gpt-4o", "p", "r", 1.0)
took = (time.perf_counter() - begun) * 1000
heavy = {"mlflow", "sqlalchemy", "openai", "anthropic", "dspy"} & set(sys.modules)
print(f"start-up with MLflow unreachable: {took:.0f} ms", file=sys.stderr)
print(bool(logged), sorted(heavy), bool(tidyllm.chat("Hi", user_id="ana")))
print(service.is_available(), service.is_connected, service.health_check()["status"])
"""


def test_the_application_works_while_the_database_is_out_of_reach(
    stub: StubLLM, tmp_path: Path
) -> None:
    stranger = Stranger("tidyllm", tmp_path, stub, {"FLOWLEDGER_TRACKING_URI": NOWHERE})
    assert "True [] True\nTrue False degraded\n" == stranger.python(START)


def test_the_one_command_starts_its_own_database_and_shows_everything(
    stub: StubLLM, tmp_path: Path
) -> None:
    folder = tempfile.mkdtemp(prefix="flowledger-pg-")  # PostgreSQL's own user must reach it
    Path(folder).chmod(0o755)
    stranger = Stranger("tidyllm", tmp_path, stub, {"TMPDIR": folder})
    said = stranger.run("./run", "--once")
    assert "does not answer: a database is started here" in said
    assert 5 == said.count("=== MLflow Record ===")
    assert "'status': 'healthy'" in said
    assert {
        "user_id is missing": 1,
        "session_id is missing": 1,
        "audit_reason is missing": 1,
        "the price is not known": 1,
        "tokens are estimated": 1,
    } == lacking(said)
    assert [] == stranger.added()
    shutil.rmtree(folder)


def test_the_viewer_shows_what_this_process_just_recorded_in_a_new_sqlite_database(
    tmp_path: Path,
) -> None:
    place = {"FLOWLEDGER_TRACKING_URI": f"sqlite:///{tmp_path / 'new.db'}"}
    program = """
from tidyllm.infrastructure.tools.mlflow_viewer import show_last_5_mlflow_records
from tidyllm.services import MLflowIntegrationService

MLflowIntegrationService().log_llm_request("custom-model", "Why?", "So.", 5.0, user_id="ana")
show_last_5_mlflow_records()
"""
    printed = Project("tidyllm", tmp_path, place).run(sys.executable, "-c", program)
    assert ["ana"] == re.findall("User ID: (.*)", printed)
