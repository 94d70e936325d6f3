"""examples/threads_agent: tracked calls of personas, against a server over HTTP."""

import json
import random
import re
import shutil
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from packaging.requirements import Requirement

from flowledger.questions import Filters, Ledger, StoredCall
from flowledger.testing.llm import StubLLM
from flowledger.testing.processes import serving
from tests.examples.projects import Project, stub_settings
from tests.server_client import rows
from tests.servers import free_port

NOWHERE = "http://192.0.2.1:5000"  # RFC 5737: an address nobody has
STORED = "import flowledger; assert flowledger.flush(90)"


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("threads")


@pytest.fixture(scope="module")
def database(place: Path, empty_sqlite: Path) -> str:
    shutil.copy(empty_sqlite, place / "mlflow.db")
    return f"sqlite:///{place / 'mlflow.db'}"


@pytest.fixture(scope="module")
def server(place: Path, database: str) -> Iterator[str]:
    with flowledger_server(database, place) as url:
        yield url


@contextmanager
def flowledger_server(database: str, place: Path) -> Iterator[str]:
    """`flowledger server` over a database; yields its URL."""
    port = str(free_port())
    command = [str(Path(sys.executable).parent / "flowledger"), "server", "--port", port]
    options = ["--backend-store-uri", database, "--artifacts-destination", str(place / "art")]
    url = f"http://127.0.0.1:{port}"
    with serving([*command, *options, "--workers", "1"], f"{url}/health", place / "server.log"):
        yield url


@pytest.fixture(scope="module")
def project(server: str, place: Path, stub: StubLLM) -> Project:
    return threads_agent(place / "home", stub, MLFLOW_TRACKING_URI=server)


def threads_agent(place: Path, stub: StubLLM, **environ: str) -> Project:
    """Return the example with the stub for its provider."""
    return Project("threads_agent", place, {**stub_settings(stub), **environ})


# Every way to track a call, each with a persona of its own.
CALLS = """
import json
from services.common import openai_wrapper
from services.common.mlflow_openai_wrapper import chat_with_tracking
from services.common.mlflow_tracking import MLflowExperimentTracker

question = "Which planet has the most moons?"
did = {
    "before": openai_wrapper.chat(model="gpt-4o", prompt=question),
    "careful": openai_wrapper.chat("gpt-4o", "Careful."),
    "after": chat_with_tracking(model="gpt-4o", prompt=question, persona_id="astronomer_bot"),
    "by position": chat_with_tracking("gpt-4o", "Name a comet.", "stargazer_bot"),
}
tasks = {"gardener": "Plant a tree", "baker": "Bake bread", "sailor": "Tie a knot"}
for persona, task in tasks.items():
    did[persona] = chat_with_tracking(model="gpt-4o", prompt=task, persona_id=persona)
did["by hand"] = MLflowExperimentTracker().track_llm_call(
    persona_id="archive_bot", model="gpt-3.5-turbo", prompt="An old question",
    response="An old answer", prompt_tokens=21, completion_tokens=13, latency_ms=480)
print(json.dumps(did))
"""


@pytest.fixture(scope="module")
def did(project: Project) -> dict[str, Any]:
    """What the calls returned, by the name of each."""
    found: dict[str, Any] = json.loads(project.python(CALLS + STORED))
    return found


def asked_as(database: str, persona: str) -> list[StoredCall]:
    """The calls of a persona, in the order they were made."""
    with Ledger(database) as ledger:
        runs = ledger.over(filters=Filters(persona_id=persona)).runs(100)
        return [ledger.call(run.id) for run in reversed(runs)]


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


SIGNATURES = """
import inspect
from services.common.mlflow_openai_wrapper import chat_with_tracking
from services.common.mlflow_tracking import MLflowExperimentTracker
for function in (MLflowExperimentTracker.track_llm_call, chat_with_tracking):
    assert inspect.getdoc(function)
    print(inspect.signature(function))
"""


def test_the_tracker_and_the_chat_take_what_they_promise(project: Project) -> None:
    assert [
        "(self, persona_id: str, model: str, prompt: str, response: str, prompt_tokens: int,"
        " completion_tokens: int, latency_ms: int) -> None",
        "(model: str, prompt: str, persona_id: str) -> str",
    ] == project.python(SIGNATURES).splitlines()


@pytest.mark.parametrize("line", ["mlflow>=2.9.0", "tiktoken>=0.5.1"])
def test_what_a_service_has_to_require_is_installed(line: str) -> None:
    wanted = Requirement(line)
    assert wanted.specifier.contains(version(wanted.name))


def test_a_call_before_tracking_answers_and_is_not_recorded(
    did: dict[str, Any], server: str, database: str
) -> None:
    # The same question is asked again with tracking, and the stub answers the same.
    assert did["before"]
    assert did["before"] == did["after"]
    query = "SELECT count(*) AS n FROM params WHERE value = 'Which planet has the most moons?'"
    assert [{"n": 1}] == rows(database, query)
    assert 1 == len(asked_as(database, "astronomer_bot"))


def test_a_tracked_call_is_a_run_in_the_experiment_of_its_persona_and_day(
    did: dict[str, Any], server: str
) -> None:
    client = MlflowClient(tracking_uri=server)
    by_name = {one.name: one.experiment_id for one in client.search_experiments()}
    [name] = [name for name in by_name if name.startswith("astronomer_bot_")]
    # As one filters in MLflow's pages.
    found = client.search_runs([by_name[name]], 'tags.persona_id = "astronomer_bot"')
    [run] = found
    started = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    assert f"astronomer_bot_{started:%Y-%m-%d}" == name
    params, metrics = run.data.params, run.data.metrics
    assert ("astronomer_bot", "gpt-4o", "Which planet has the most moons?") == (
        params["persona_id"],
        params["model"],
        params["prompt"],
    )
    assert did["after"] == params["response"]
    assert metrics["total_tokens"] == metrics["prompt_tokens"] + metrics["completion_tokens"] > 0
    assert metrics["prompt_tokens"] == metrics["input_tokens"]
    assert metrics["latency_ms"] > 0


def test_one_variable_of_the_environment_says_where_the_server_is(
    server: str, place: Path, stub: StubLLM, database: str
) -> None:
    threads_agent(place / "other", stub, MLFLOW_TRACKING_URI=server).python(
        "from services.common.mlflow_openai_wrapper import chat_with_tracking\n"
        "chat_with_tracking('gpt-4o', 'Hi', 'configured_bot')\n" + STORED
    )
    assert 1 == len(asked_as(database, "configured_bot"))


def test_the_pages_are_at_the_servers_address(server: str) -> None:
    with urllib.request.urlopen(server, timeout=60) as page:
        assert (200, "text/html") == (page.status, page.headers.get_content_type())


def test_a_simple_call_is_tracked(did: dict[str, Any], database: str) -> None:
    [call] = asked_as(database, "stargazer_bot")
    assert did["by position"] == call.content.response


def test_a_batch_of_personas_is_tracked_persona_by_persona(
    did: dict[str, Any], database: str
) -> None:
    for persona in ("gardener", "baker", "sailor"):
        [call] = asked_as(database, persona)
        assert did[persona] == call.content.response


def test_a_call_tracked_by_hand_is_recorded_as_it_was(did: dict[str, Any], database: str) -> None:
    [call] = asked_as(database, "archive_bot")
    assert did["by hand"] is None
    assert ("gpt-3.5-turbo", 21, 13, 34, 480.0, "An old answer") == (
        call.model_asked,
        call.input_tokens,
        call.output_tokens,
        call.total_tokens,
        call.latency_ms,
        call.content.response,
    )


def test_the_server_has_the_metrics_that_dashboards_ask_for(
    did: dict[str, Any], server: str
) -> None:
    with urllib.request.urlopen(f"{server}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    found = {re.split("[ {]", line)[0].removesuffix("_count") for line in lines}
    assert {
        "mlflow_requests_total",
        "mlflow_request_duration_seconds",
        "mlflow_active_runs",
        "mlflow_experiments_total",
    } <= found


def test_a_call_is_answered_while_mlflow_is_out_of_reach(
    did: dict[str, Any], stub: StubLLM, tmp_path: Path
) -> None:
    project = threads_agent(tmp_path, stub, MLFLOW_TRACKING_URI=NOWHERE)
    program = (
        "import sys, time\n"
        "begun = time.perf_counter()\n"
        "from services.common.mlflow_tracking import MLflowExperimentTracker\n"
        "MLflowExperimentTracker().track_llm_call('a_bot', 'gpt-4o', 'p', 'r', 1, 2, 3)\n"
        "took = (time.perf_counter() - begun) * 1000\n"
        "print(f'start-up with MLflow unreachable: {took:.0f} ms', file=sys.stderr)\n"
        "print(sorted({'mlflow', 'sqlalchemy', 'openai'} & set(sys.modules)))\n"
        "from services.common.mlflow_openai_wrapper import chat_with_tracking\n"
        'print(chat_with_tracking("gpt-4o", "Careful.", "careful_bot"))\n'
        "import os\n"
        "os.environ['PERSONA_POST_VERSIONS'] = '1,2'\n"
        "from fastapi.testclient import TestClient\n"
        "from services.persona_runtime.main import app\n"
        "task = {'persona_id': 'careful_bot', 'topic': 'robots'}\n"
        "print(TestClient(app).post('/run', json=task).json()['prompt_version'])\n"
    )
    assert f"[]\n{did['careful']}\nNone\n" == project.python(program)


def track_calls(project: Project, count: int) -> dict[str, list[dict[str, Any]]]:
    """Track calls of three personas by hand; returns them by persona."""
    chance = random.Random(5)
    calls: list[dict[str, Any]] = [
        {
            "persona_id": chance.choice(["alpha_bot", "beta_bot", "gamma_bot"]),
            "model": "gpt-4o-2024-05-13",  # $5 and $15 a million tokens
            "prompt": "p",
            "response": "r",
            "prompt_tokens": chance.randrange(3000),
            "completion_tokens": chance.randrange(900),
            "latency_ms": chance.randrange(1, 9000),
        }
        for _ in range(count)
    ]
    project.run("python", "-c", TRACK + STORED, stdin=json.dumps(calls))
    by_persona = defaultdict(list)
    for call in calls:
        by_persona[call["persona_id"]].append(call)
    return by_persona


TRACK = """
import json, sys
from services.common.mlflow_tracking import MLflowExperimentTracker
tracker = MLflowExperimentTracker()
for one in json.load(sys.stdin):
    tracker.track_llm_call(**one)
"""
# MLflow's own tables, as anybody with the database would ask them.
TOKENS_BY_PERSONA = """
SELECT persona.value AS persona, sum(tokens.value) / count(*) AS mean, count(*) AS calls
FROM params AS persona JOIN metrics AS tokens USING (run_uuid)
WHERE persona.key = 'persona_id' AND tokens.key = 'total_tokens'
GROUP BY persona.value
"""


def test_sql_costs_and_latency_add_up_as_by_hand_over_five_thousand_calls(
    project: Project, server: str, database: str
) -> None:
    by_persona = track_calls(project, 5000)
    found = {row["persona"]: row for row in rows(database, TOKENS_BY_PERSONA)}
    usage = fetched(f"{server}/api/flowledger/v1/usage?by=persona_id&days=1")["usage"]
    slices = {row["value"]: row for row in usage}
    assert 5000 == sum(map(len, by_persona.values()))
    for persona, some in by_persona.items():
        asked, answered, took = (
            sum(one[name] for one in some)
            for name in ("prompt_tokens", "completion_tokens", "latency_ms")
        )
        assert len(some) == found[persona]["calls"]
        assert pytest.approx((asked + answered) / len(some)) == found[persona]["mean"]
        told = slices[persona]
        assert (len(some), 0) == (told["calls"], told["failed"])
        assert pytest.approx((5 * asked + 15 * answered) / 1e6) == told["cost_usd"]
        assert pytest.approx(took / len(some)) == told["avg_latency_ms"]


def test_the_tracker_says_in_debug_mode_what_it_does(project: Project) -> None:
    program = (
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "from services.common.mlflow_tracking import MLflowExperimentTracker\n"
        "for level in (logging.INFO, logging.DEBUG):\n"
        "    logging.getLogger('services.common.mlflow_tracking').setLevel(level)\n"
        "    MLflowExperimentTracker().track_llm_call(\n"
        "        f'loud_bot_{level}', 'gpt-4o', 'secret', 'r', 1, 2, 3)\n"
    )
    expected = "DEBUG:services.common.mlflow_tracking:a call for loud_bot_10 is tracked\n"
    assert expected == project.python(program)


def test_a_call_over_midnight_belongs_to_the_day_it_began(project: Project, database: str) -> None:
    project.python(
        "from services.common.mlflow_tracking import MLflowExperimentTracker\n"
        "MLflowExperimentTracker().track_llm_call('late_bot', 'gpt-4o', 'p', 'r', 1, 2, 86400000)\n"
        + STORED
    )
    [call] = asked_as(database, "late_bot")
    ended = datetime.fromtimestamp(call.received_ms / 1000, UTC)
    began = datetime.fromtimestamp(call.start_ms / 1000, UTC)
    assert timedelta(days=1) <= ended - began
    assert f"late_bot_{began:%Y-%m-%d}" == call.experiment


FUTURE = """
import asyncio, io, json
from services.common.mlflow_openai_wrapper import stream_with_tracking, tracked_client
from services.common.mlflow_tracking import track_llm_call

@track_llm_call(persona_id="async_bot", model="gpt-4o")
async def write(prompt: str) -> str:
    return "An answer of some words."

asyncio.run(write("Write."))
print("".join(stream_with_tracking("gpt-4o", "Slowly.", "streaming_bot")))

tool = {"type": "function", "function": {"name": "post", "parameters": {
    "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}}}
question = [{"role": "user", "content": "Post it."}]
with tracked_client("calling_bot") as client:
    client.chat.completions.create(model="gpt-4o", messages=question, tools=[tool])

with tracked_client("batch_bot") as client:
    lines = [{"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions",
              "body": {"model": "gpt-4o", "messages": question}} for n in range(3)]
    file = client.files.create(
        file=("batch.jsonl", "\\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    client.files.content(client.batches.retrieve(batch.id).output_file_id).text
"""


def test_coroutines_streams_functions_and_batches_are_tracked(
    project: Project, database: str
) -> None:
    streamed = project.python(FUTURE + STORED)
    [coroutine] = asked_as(database, "async_bot")
    assert ("An answer of some words.", "gpt-4o") == (
        coroutine.content.response,
        coroutine.model_asked,
    )
    assert coroutine.output_tokens == 6
    [stream] = asked_as(database, "streaming_bot")
    assert streamed == f"{stream.content.response}\n"
    assert stream.time_to_first_token_ms
    [function] = asked_as(database, "calling_bot")
    assert ["post"] == [tool.name for tool in function.content.tool_calls]
    batch = asked_as(database, "batch_bot")
    assert ["0", "1", "2"] == sorted(call.params["custom_id"] for call in batch)
    assert all(call.cost_usd for call in batch)


REGISTRY = """
from services.common.prompt_registry import PromptModelRegistry, choose
from services.common.mlflow_openai_wrapper import chat_with_tracking

registry = PromptModelRegistry()
texts = ("Hook {{topic}}.", "Say {{topic}}!")
tried = [registry.load("persona_hook", registry.register("persona_hook", text)) for text in texts]
for user in range(40):
    with choose(tried, f"user-{user}").use(topic="AI") as asked:
        chat_with_tracking("gpt-4o", asked, "tested_bot")
assert {choose(tried, "ana") for _ in range(9)} == {choose(tried, "ana")}
"""


def test_prompts_are_versioned_tried_side_by_side_and_compared(
    project: Project, server: str, database: str
) -> None:
    compared = "\nimport json; print(json.dumps(registry.performance('persona_hook')))"
    performance = json.loads(project.python(REGISTRY + STORED + compared))
    calls = asked_as(database, "tested_bot")
    by_hand = {
        number: [call for call in calls if call.prompt_version == number] for number in ("1", "2")
    }
    assert 40 == sum(map(len, by_hand.values()))
    assert {number: len(some) for number, some in by_hand.items()} == {
        number: one["run_count"] for number, one in performance.items()
    }
    for number, some in by_hand.items():
        assert some
        assert (
            pytest.approx(sum(call.cost_usd or 0 for call in some))
            == (performance[number]["total_cost_usd"])
        )
    mlflow.set_tracking_uri(server)
    mlflow.set_registry_uri(server)
    try:
        known = mlflow.genai.load_prompt("prompts:/persona_hook/2")
        assert ("Say {{topic}}!", 2) == (known.template, known.version)
    finally:
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")


RUNTIME = """
import json, os
from fastapi.testclient import TestClient
from services.common.prompt_registry import PromptModelRegistry

texts = ("As {{persona}}: {{topic}}.", "{{topic}}, says {{persona}}.")
numbers = [PromptModelRegistry().register("persona_post", text) for text in texts]
os.environ["PERSONA_POST_VERSIONS"] = ",".join(map(str, numbers))
from services.persona_runtime.main import app

client = TestClient(app, headers={"x-user-id": "ana", "x-session-id": "s-9"})
task = {"persona_id": "runtime_bot", "topic": "robots"}
refused = client.post("/run", json={**task, "persona_id": "bot1"}).status_code
print(json.dumps([
    client.post("/run", json=task).json(), client.post("/stream", json=task).text, refused]))
"""


def test_the_persona_runtime_writes_whole_and_in_pieces_with_a_version_of_its_prompt(
    project: Project, database: str
) -> None:
    post, streamed, refused = json.loads(project.python(RUNTIME + STORED))
    whole, pieces = asked_as(database, "runtime_bot")
    assert (post["text"], streamed) == (whole.content.response, pieces.content.response)
    assert post["prompt_version"] in ("1", "2")
    for call in (whole, pieces):
        assert ("persona_post", post["prompt_version"], "persona_runtime", "ana", "s-9") == (
            call.prompt_name,
            call.prompt_version,
            call.feature,
            call.user_id,
            call.session_id,
        )
    assert 422 == refused


def test_the_one_command_runs_every_service_and_each_tracks_for_who_asked(
    project: Project, place: Path, server: str, database: str, stub: StubLLM
) -> None:
    ports = {name: str(free_port()) for name in ("PERSONA_RUNTIME_PORT", "ORCHESTRATOR_PORT")}
    showing = threads_agent(place / "showing", stub, MLFLOW_TRACKING_URI=server, **ports)
    said = showing.run("./run", "--once")
    assert 2 == said.count("'score': ")
    with Ledger(database) as ledger:
        over = ledger.over(filters=Filters(user_id="demo"))
        features = {row.value: row.calls for row in over.by("feature")}
        personas = {row.value: row.calls for row in over.by("persona_id")}
    assert {"orchestrator": 2, "persona_runtime": 2, "celery_worker": 2} == features
    assert {"viral_creator": 3, "tech_expert": 3} == personas
    assert [] == showing.added()


def test_nothing_is_written_into_the_examples_folder(did: dict[str, Any], project: Project) -> None:
    assert [] == project.added()
