"""threads_agent's document: its blocks as they are printed, against a server over HTTP."""

import re
import shutil
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mlflow import MlflowClient
from packaging.requirements import Requirement

from flowledger.testing.llm import StubLLM
from tests.documents.seeds import code
from tests.documents.stranger import Page, Stranger
from tests.examples.test_threads_agent import (
    NOWHERE,
    STORED,
    asked_as,
    fetched,
    flowledger_server,
    track_calls,
)
from tests.server_client import rows

CAREFUL = 'chat_with_tracking("gpt-4o", "Careful.", "careful_bot")'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("threads")


@pytest.fixture(scope="module")
def database(place: Path, empty_sqlite: Path) -> str:
    shutil.copy(empty_sqlite, place / "mlflow.db")
    return f"sqlite:///{place / 'mlflow.db'}"


@pytest.fixture(scope="module")
def server(place: Path, database: str) -> Iterator[str]:
    """A flowledger server, where the document has MLflow's."""
    with flowledger_server(database, place) as url:
        yield url


@pytest.fixture(scope="module")
def stranger(server: str, place: Path, stub: StubLLM) -> Stranger:
    return Stranger("threads_agent", place / "home", stub, {"MLFLOW_TRACKING_URI": server})


@pytest.fixture(scope="module")
def pages(stranger: Stranger) -> dict[int, Page]:
    """What each Python block of the document did, typed one after the other."""
    return stranger.reads(
        (5, 6, 10, 11, 12, 14, 19),
        last=STORED,
        changed={"chat_with_tracking(...)": CAREFUL},
    )


def test_the_signatures_are_those_of_the_document(stranger: Stranger) -> None:
    program = (
        "import inspect\n"
        "printed = {}\n"
        f"exec({stranger.block(2)!r}, printed)\n"
        f"exec({stranger.block(3)!r}, printed)\n"
        "from services.common.mlflow_openai_wrapper import chat_with_tracking\n"
        "from services.common.mlflow_tracking import MLflowExperimentTracker\n"
        "tracker = printed['MLflowExperimentTracker']\n"
        "for one, other in ((tracker.track_llm_call, MLflowExperimentTracker.track_llm_call),\n"
        "                   (printed['chat_with_tracking'], chat_with_tracking)):\n"
        "    assert inspect.signature(one) == inspect.signature(other)\n"
        "    assert inspect.getdoc(one) == inspect.getdoc(other)\n"
    )
    assert "" == stranger.python(program)


def test_what_the_document_requires_is_installed() -> None:
    for line in code("threads_agent", 4).splitlines():
        wanted = Requirement(line)
        assert wanted.specifier.contains(version(wanted.name)), line


def test_a_call_before_tracking_answers_and_is_not_recorded(
    pages: dict[int, Page], database: str
) -> None:
    # The same question is asked again with tracking, and the stub answers the same.
    assert pages[5].response == pages[6].response
    assert 1 == len(asked_as(database, "viral_content_creator"))


def test_a_tracked_call_is_a_run_in_the_experiment_of_its_persona_and_day(
    pages: dict[int, Page], server: str
) -> None:
    client = MlflowClient(tracking_uri=server)
    by_name = {one.name: one.experiment_id for one in client.search_experiments()}
    [name] = [name for name in by_name if name.startswith("viral_content_creator_")]
    # As the document filters in MLflow's pages.
    found = client.search_runs([by_name[name]], 'tags.persona_id = "viral_content_creator"')
    [run] = found
    started = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    assert f"viral_content_creator_{started:%Y-%m-%d}" == name
    params, metrics = run.data.params, run.data.metrics
    assert ("viral_content_creator", "gpt-4o", "Generate a viral post about AI") == (
        params["persona_id"],
        params["model"],
        params["prompt"],
    )
    assert pages[6].response == params["response"]
    assert metrics["total_tokens"] == metrics["prompt_tokens"] + metrics["completion_tokens"] > 0
    assert metrics["prompt_tokens"] == metrics["input_tokens"]
    assert metrics["latency_ms"] > 0


def test_the_environment_of_the_document_says_where_the_server_is(
    server: str, place: Path, stub: StubLLM, database: str
) -> None:
    [given] = msgspec.yaml.decode(code("threads_agent", 7))["env"]
    address = given["value"].replace("http://mlflow.mlflow.svc.cluster.local:5000", server)
    other = Stranger("threads_agent", place / "other", stub, {given["name"]: address})
    other.python(
        "from services.common.mlflow_openai_wrapper import chat_with_tracking\n"
        "chat_with_tracking('gpt-4o', 'Hi', 'configured_bot')\n" + STORED
    )
    assert 1 == len(asked_as(database, "configured_bot"))


def test_the_ui_is_at_the_address_that_is_opened(server: str) -> None:
    address = code("threads_agent", 9).split()[-1].replace("http://localhost:8085", server)
    with urllib.request.urlopen(address, timeout=60) as page:
        assert (200, "text/html") == (page.status, page.headers.get_content_type())


def test_a_simple_call_is_tracked(pages: dict[int, Page], database: str) -> None:
    [call] = asked_as(database, "educator_bot")
    assert pages[10].response == call.content.response


def test_a_batch_of_personas_is_tracked_persona_by_persona(
    pages: dict[int, Page], database: str
) -> None:
    for persona in ("viral_creator", "tech_expert", "comedian"):
        assert 1 == len(asked_as(database, persona))


def test_a_call_tracked_by_hand_is_recorded_as_it_was(
    pages: dict[int, Page], database: str
) -> None:
    [call] = asked_as(database, "custom_bot")
    assert ("gpt-3.5-turbo", 10, 20, 30, 150.0) == (
        call.model_asked,
        call.input_tokens,
        call.output_tokens,
        call.total_tokens,
        call.latency_ms,
    )


def test_the_metrics_of_the_document_are_there(pages: dict[int, Page], server: str) -> None:
    with urllib.request.urlopen(f"{server}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    found = {re.split("[ {]", line)[0] for line in lines}
    names = [line for line in code("threads_agent", 13).splitlines() if not line.startswith("#")]
    histogram = {name.removesuffix("_count") for name in found}
    assert [] == [name for name in names if name not in found | histogram]


def test_a_call_is_answered_while_mlflow_is_out_of_reach(
    pages: dict[int, Page], stub: StubLLM, tmp_path: Path
) -> None:
    stranger = Stranger("threads_agent", tmp_path, stub, {"MLFLOW_TRACKING_URI": NOWHERE})
    assert f"{pages[14].response}\n" == stranger.python(
        f"from services.common.mlflow_openai_wrapper import chat_with_tracking\nprint({CAREFUL})"
    )


def test_the_sql_and_the_cost_of_the_document_add_up_as_by_hand(
    stranger: Stranger, server: str, database: str
) -> None:
    by_persona = track_calls(stranger, 500)
    found = {row["persona"]: row["avg_tokens"] for row in rows(database, code("threads_agent", 15))}
    usage = fetched(f"{server}/api/flowledger/v1/usage?by=persona_id&days=1")["usage"]
    costs = {row["value"]: row["cost_usd"] for row in usage}
    for persona, some in by_persona.items():
        tokens: dict[str, Any] = {
            name: sum(one[name] for one in some) for name in ("prompt_tokens", "completion_tokens")
        }
        assert pytest.approx(sum(tokens.values()) / len(some)) == found[persona]
        # As printed its sum goes on in a second line, which Python does not take.
        exec(code("threads_agent", 16).replace("+\n", "+ \\\n"), tokens)
        assert pytest.approx(tokens["cost"]) == costs[persona]


def test_the_tracker_says_in_debug_mode_what_it_does(stranger: Stranger) -> None:
    program = (
        f"import sys\n{stranger.block(19)}\nlogging.basicConfig(stream=sys.stdout)\n"
        "from services.common.mlflow_tracking import MLflowExperimentTracker\n"
        "MLflowExperimentTracker().track_llm_call('loud_bot', 'gpt-4o', 'secret', 'r', 1, 2, 3)\n"
    )
    expected = "DEBUG:services.common.mlflow_tracking:a call for loud_bot is tracked\n"
    assert expected == stranger.python(program)


def test_nothing_is_written_into_the_examples_folder(
    pages: dict[int, Page], stranger: Stranger
) -> None:
    assert [] == stranger.added()
