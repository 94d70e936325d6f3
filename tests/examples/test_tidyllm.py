"""examples/tidyllm: chats that are recorded with who asked and why, over PostgreSQL."""

import json
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flowledger.questions import Filters, Ledger, StoredCall
from flowledger.testing.llm import StubLLM
from tests.conftest import postgres_database
from tests.examples.projects import Project, stub_settings
from tests.server_client import rows

NOWHERE = "postgresql://nobody@192.0.2.1:5432/vectorqa"  # RFC 5737: an address nobody has
TOOLS = "from tidyllm.infrastructure.tools.mlflow_viewer import show_last_5_mlflow_records\n"

# One user after the other, each the subject of one test.
CHATS = (
    TOOLS
    + """
import contextlib, io, json, time
from uuid import uuid4
import tidyllm
from tidyllm.infrastructure.tools.mlflow_evidence_checker import show_missing_evidence
from tidyllm.services import MLflowIntegrationService

def printed_by(show):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        show()
    return printed.getvalue()

did = {}
service = MLflowIntegrationService()
did["service"] = [service.is_available(), service.is_connected]
did["answer"] = tidyllm.chat("When is the shop open?", chat_type="direct", reasoning=True,
                             user_id="nora", audit_reason="opening_hours")
for mode in ("direct", "dspy", "rag", "hybrid"):
    tidyllm.chat("How long may goods be returned?", chat_type=mode, user_id="omar")
time.sleep(0.1)  # so that what is logged began after those chats
did["logged"] = bool(service.log_llm_request(
    model="in-house", prompt="two and two", response="four", processing_time=87.5,
    token_usage={"input": 7, "output": 3, "total": 10}, success=True,
    user_id="pia", session_id="s-17", audit_reason="import"))
did["latest"] = printed_by(show_last_5_mlflow_records)
did["missing"] = printed_by(show_missing_evidence)
tidyllm.chat("What is a receipt?", user_id="quinn", audit_reason="glossary")
session = str(uuid4())
for turn in ("When are records erased?", "Who asks for it?", "And then?"):
    tidyllm.chat(turn, chat_type="hybrid", user_id="rosa", session_id=session,
                 audit_reason="turn: " + turn)
for user in ("sven", "tara"):
    for reason in ("first", "second", "third"):
        tidyllm.chat(reason, chat_type="direct", user_id=user, audit_reason=reason)
did["last"] = printed_by(show_last_5_mlflow_records)
print(json.dumps([session, did]))
"""
)


class Chats(NamedTuple):
    """What was seen of the chats: the conversation's session, and answers and prints by name."""

    session: str
    did: dict[str, Any]


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


@pytest.fixture(scope="module")
def database(postgres_server: str) -> Iterator[str]:
    with postgres_database(postgres_server) as uri:
        yield uri


@pytest.fixture(scope="module")
def project(database: str, stub: StubLLM, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return tidyllm(tmp_path_factory.mktemp("home"), stub, FLOWLEDGER_TRACKING_URI=database)


@pytest.fixture
def other_database(postgres_server: str) -> Iterator[str]:
    with postgres_database(postgres_server) as uri:
        yield uri


def tidyllm(place: Path, stub: StubLLM, **environ: str) -> Project:
    """Return the example with the stub for its providers."""
    return Project("tidyllm", place, {**stub_settings(stub), **environ})


@pytest.fixture(scope="module")
def chats(project: Project) -> Chats:
    """What the chats answered and what the tools printed."""
    return Chats(*json.loads(project.python(CHATS)))


def asked_by(database: str, user: str) -> list[StoredCall]:
    """The requests of a user, in the order they were made."""
    with Ledger(database) as ledger:
        runs = ledger.over(filters=Filters(user_id=user, kind="chat")).runs(100)
        return [ledger.call(run.id) for run in reversed(runs)]


def users_in(printed: str) -> list[str]:
    """The users of the records that the viewer printed, in their order."""
    return re.findall("User ID: (.*)", printed)


def test_a_chat_is_recorded_with_user_and_reason(chats: Chats, database: str) -> None:
    [call] = asked_by(database, "nora")
    assert ("opening_hours", "claude-3-sonnet") == (call.audit_reason, call.model)
    assert chats.did["answer"]["token_usage"]["total"] == call.total_tokens


def test_all_four_modes_are_recorded(chats: Chats, database: str) -> None:
    modes = [call.tags["chat_type"] for call in asked_by(database, "omar")]
    assert ["direct", "dspy", "rag", "hybrid"] == modes


def test_the_service_says_that_it_is_there(chats: Chats) -> None:
    assert [True, True] == chats.did["service"]


def test_a_request_logged_by_hand_is_recorded(chats: Chats, database: str) -> None:
    [call] = asked_by(database, "pia")
    assert chats.did["logged"]
    assert ("in-house", 7, 3, 10, 87.5) == (
        call.model_asked,
        call.input_tokens,
        call.output_tokens,
        call.total_tokens,
        call.latency_ms,
    )
    assert ("s-17", "import", True) == (call.session_id, call.audit_reason, call.success)
    assert [{"role": "user", "content": "two and two"}] == call.content.prompt
    assert "four" == call.content.response


def test_the_viewer_prints_the_records_so_far(chats: Chats) -> None:
    assert ["pia", "omar", "omar", "omar", "omar"] == users_in(chats.did["latest"])


def test_the_checker_reports_what_is_missing_so_far(chats: Chats) -> None:
    printed = chats.did["missing"]
    assert "=== MLflow Evidence: 8 calls ===" == printed.splitlines()[0]
    # Five chats named no session and the four modes no reason, nor did what searched passages for
    # them; and nobody knows the price of in-house.
    expected = {"session_id is missing": 7, "audit_reason is missing": 6}
    assert {**expected, "the price is not known": 1} == missing_fields(printed)


def test_the_tools_run_as_scripts(chats: Chats, project: Project) -> None:
    folder = project.path / "tidyllm"
    tools = ("mlflow_viewer", "mlflow_evidence_checker")
    viewer, checker = (
        project.run("python", f"infrastructure/tools/{name}.py", cwd=folder) for name in tools
    )
    assert 5 == viewer.count("=== MLflow Record ===")
    assert 1 == checker.count("=== MLflow Evidence: ")


def test_the_answer_has_its_audit_trail(chats: Chats, database: str) -> None:
    answer, [call] = chats.did["answer"], asked_by(database, "nora")
    assert call.content.response == answer["content"]
    assert {
        "user_id": "nora",
        "audit_reason": "opening_hours",
        "model_id": "claude-3-sonnet",
        "temperature": 0.7,
        "max_tokens": 4000,
        "success": True,
        "error": None,
    }.items() <= answer["audit_trail"].items()
    # The chat began before it asked the model, and ended after the answer.
    began = datetime.fromisoformat(answer["audit_trail"]["timestamp"]).replace(tzinfo=UTC)
    assert int(began.timestamp() * 1000) <= call.start_ms
    assert call.latency_ms <= answer["audit_trail"]["processing_time_ms"]
    assert {
        "input": call.input_tokens,
        "output": call.output_tokens,
        "total": call.total_tokens,
    } == answer["token_usage"]


def test_a_record_is_printed_as_an_auditor_reads_it(
    other_database: str, stub: StubLLM, tmp_path: Path
) -> None:
    alone = tidyllm(tmp_path, stub, FLOWLEDGER_TRACKING_URI=other_database)
    printed = alone.python(
        TOOLS + "import tidyllm\n"
        "tidyllm.chat('What is a ledger?', user_id='uma', audit_reason='training')\n"
        "show_last_5_mlflow_records()"
    )
    assert [
        "=== MLflow Record ===",
        "RUN IDENTIFICATION:",
        "  User ID: uma",
        "  Audit Reason: training",
        "  Model: claude-3-sonnet",
        "  Timestamp: ...",
        "",
        "PARAMETERS:",
        "  model: claude-3-sonnet",
        "  temperature: ...",
        "  user_id: uma",
        "  audit_reason: training",
        "",
        "METRICS:",
        "  input_tokens: ...",
        "  output_tokens: ...",
        "  total_tokens: ...",
        "  processing_time_ms: ...",
        "  success: ...",
    ] == record_shape(printed)


def record_shape(record: str) -> list[str]:
    """A record without what is different each time: its time, its duration and its counts."""
    return [re.sub(r": [\d.:T-]+$", ": ...", line) for line in record.strip().splitlines()]


def test_the_examples_own_tests_pass(project: Project) -> None:
    folder = project.path / "tidyllm" / "tests" / "mlflow"
    names = ("test_session_tracking.py", "test_activity_viewer.py")
    printed = "".join(project.run("python", name, cwd=folder) for name in names)
    assert ["ok"] * 5 == [line.partition(":")[0] for line in printed.splitlines()]


def test_a_chat_that_just_ended_is_shown_first(chats: Chats, project: Project) -> None:
    printed = project.python(
        TOOLS + "import tidyllm\n"
        "answer = tidyllm.chat('Is it kept?', reasoning=True, user_id='vera')\n"
        "assert 'vera' == answer['audit_trail']['user_id']\n"
        "show_last_5_mlflow_records()"
    )
    assert "vera" == users_in(printed)[0]


def test_a_chat_is_a_run_of_mlflow_in_postgresql(chats: Chats, database: str) -> None:
    [run] = rows(database, "SELECT run_uuid FROM tags WHERE key = 'user_id' AND value = 'nora'")
    experiment = "SELECT experiment_id FROM experiments WHERE name = 'tidyllm'"
    [place] = rows(database, f"SELECT run_uuid FROM runs WHERE experiment_id IN ({experiment})"
                   f" AND run_uuid = '{run['run_uuid']}'")  # fmt: skip
    assert run == place
    params, metrics = (
        {row["key"]: row["value"] for row in rows(database, _OF_RUN.format(table, **run))}
        for table in ("params", "metrics")
    )
    assert {
        "model": "claude-3-sonnet",
        "model_id": "claude-3-sonnet",
        "audit_reason": "opening_hours",
        "temperature": "0.7",
        "max_tokens": "4000",
    }.items() <= params.items()
    assert metrics["latency_ms"] == metrics["processing_time_ms"]
    assert (1.0, metrics["input_tokens"] + metrics["output_tokens"]) == (
        metrics["success"],
        metrics["total_tokens"],
    )


_OF_RUN = "SELECT key, value FROM {} WHERE run_uuid = '{run_uuid}'"


def test_a_user_that_is_named_is_in_the_record(chats: Chats, database: str) -> None:
    assert ["glossary"] == [call.audit_reason for call in asked_by(database, "quinn")]


def test_a_conversation_keeps_its_session(chats: Chats, database: str) -> None:
    calls = asked_by(database, "rosa")
    assert {chats.session} == {call.session_id for call in calls}
    assert ["1", "2", "3"] == [str(call.tags["chat_turn"]) for call in calls]
    assert [
        "turn: When are records erased?",
        "turn: Who asks for it?",
        "turn: And then?",
    ] == [call.audit_reason for call in calls]


def test_a_batch_of_users_is_recorded_user_by_user(chats: Chats, database: str) -> None:
    for user in ("sven", "tara"):
        calls = asked_by(database, user)
        assert ["first", "second", "third"] == [call.audit_reason for call in calls]
    assert ["tara", "tara", "tara", "sven", "sven"] == users_in(chats.did["last"])


def test_nothing_is_written_into_the_examples_folder(chats: Chats, project: Project) -> None:
    assert [] == project.added()


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


def test_five_thousand_requests_add_up_as_by_hand(
    other_database: str, stub: StubLLM, tmp_path: Path
) -> None:
    chance = random.Random(7)
    requests = [_request(chance) for _ in range(5000)]
    project = tidyllm(tmp_path, stub, FLOWLEDGER_TRACKING_URI=other_database)
    said = project.run("python", "-c", LOG, stdin=json.dumps(requests)).splitlines()
    everybody, ana, health = json.loads(said[-1])
    assert pytest.approx(_by_hand(requests)) == everybody
    assert pytest.approx(_by_hand([one for one in requests if one["user_id"] == "ana"])) == ana
    assert ("healthy", 5000, 0) == (health["status"], health["records"], health["lost"])
    assert {
        "user_id is missing": sum(one["user_id"] is None for one in requests),
        "session_id is missing": 5000,
        "audit_reason is missing": sum(one["audit_reason"] is None for one in requests),
        "the price is not known": sum(one["model"] == "custom-model" for one in requests),
    } == missing_fields("\n".join(said))


def missing_fields(printed: str) -> dict[str, int]:
    """What the checker said, by what is missing."""
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
    project = tidyllm(tmp_path, stub, FLOWLEDGER_TRACKING_URI=NOWHERE)
    assert "True [] True\nTrue False degraded\n" == project.python(START)


def test_the_one_command_starts_its_own_database_and_shows_everything(
    stub: StubLLM, tmp_path: Path
) -> None:
    folder = tempfile.mkdtemp(prefix="flowledger-pg-")  # PostgreSQL's own user must reach it
    Path(folder).chmod(0o755)
    project = tidyllm(tmp_path, stub, TMPDIR=folder)
    said = project.run("./run", "--once")
    assert "does not answer: a database is started here" in said
    assert 5 == said.count("=== MLflow Record ===")
    assert "'status': 'healthy'" in said
    assert {
        "user_id is missing": 1,
        "session_id is missing": 1,
        "audit_reason is missing": 1,
        "the price is not known": 1,
        "tokens are estimated": 1,
    } == missing_fields(said)
    assert [] == project.added()
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
