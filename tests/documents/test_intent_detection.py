"""intent_detection's document: its blocks, lists and commands, over real HTTP and SQLite."""

import json
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowledger.testing.llm import StubLLM
from tests.documents.seeds import blocks, code, page
from tests.examples.projects import Project, eventually, stub_settings
from tests.examples.test_intent_detection import (
    API,
    BEGINS,
    DETECTION,
    ENDPOINTS,
    MESSAGES,
    METRICS,
    PARAMS,
    TAGS,
    Service,
    detect,
    extended,
    logged_by,
    mlflow_at,
    runs_of,
    started,
)


def lines(language: str, first: str) -> list[str]:
    """The commands of the document that begin with a word."""
    found = (
        line.strip()
        for block in blocks("intent_detection")
        if block.language == language
        for line in block.text.splitlines()
    )
    return [line for line in found if line.startswith(first)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, stub: StubLLM) -> Project:
    """The example with nothing that says where runs go."""
    folder = tmp_path_factory.mktemp("intents")
    return Project("intent_detection", folder, stub_settings(stub))


@pytest.fixture(scope="module")
def service(project: Project) -> Iterator[Service]:
    """The service by the document's command, after three messages of three sessions."""
    folder = project.home.parent / "cwd"
    folder.mkdir()
    [command] = lines("bash", "uvicorn")
    with started(project, folder, command) as url:
        answers = [detect(url, message) for message in MESSAGES]
        running = Service(project, folder, url, answers)
        eventually(lambda: running.get(f"{API}/health")["total_runs"] == len(MESSAGES))
        yield running


def test_the_default_is_the_documents_database(service: Service) -> None:
    [named] = [line for line in lines("bash", "export MLFLOW") if "sqlite" in line]
    assert 'export MLFLOW_TRACKING_URI="sqlite:///mlflow.db"' == named
    assert 3 == len(service.runs())


def test_the_lists_of_metrics_tags_and_parameters_are_those_that_runs_have() -> None:
    named = re.findall(r"^- `(\w+)`: ", page("intent_detection"), re.MULTILINE)
    assert (METRICS, TAGS, PARAMS) == ({*named[:5]}, {*named[5:11]}, {*named[11:16]})


def test_every_curl_of_the_document_answers(service: Service) -> None:
    commands = lines("bash", "curl")
    assert 6 == len(commands)
    for command in commands:
        told = json.loads(service.shell(command.replace("http://localhost:8000", service.url)))
        assert "detail" not in told, command


def test_the_endpoints_listed_are_those_that_answer(service: Service) -> None:
    listed = re.findall(r"^- `(GET|POST) (\S+)` - ", page("intent_detection"), re.MULTILINE)
    assert {(method, f"{API}/{path}") for method, path in ENDPOINTS} == {*listed}
    for method, path in listed:
        asked = urllib.request.Request(f"{service.url}{path}", method=method)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert 200 == answer.status


def test_a_metric_and_a_tag_pasted_from_the_document_are_on_the_run(
    project: Project, tmp_path: Path, empty_sqlite: Path
) -> None:
    metric, tag = (pasted(code("intent_detection", number)) for number in (9, 10))
    [run] = runs_of(extended(project, tmp_path, empty_sqlite, metric, tag), DETECTION)
    assert (0.5, "own") == (run.data.metrics["custom_metric_name"], run.data.tags["custom_tag"])


def pasted(block: str) -> tuple[str, str]:
    """The constant and the call of one of the document's customisations."""
    constant, call = (line for line in block.splitlines() if line and not line.startswith("#"))
    return constant, call


def test_what_is_to_be_installed_is_in_the_requirements(project: Project) -> None:
    wanted = (project.path / "requirements.txt").read_text().splitlines()
    assert code("intent_detection", 1).strip() in wanted
    assert "pip install -r requirements.txt" == code("intent_detection", 2).strip()


def test_the_tracking_uri_can_be_verified_as_the_document_does(project: Project) -> None:
    environ = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    told = project.run("bash", "-c", code("intent_detection", 13), environ=environ)
    assert "sqlite:///mlflow.db" == told.strip()


def test_debug_logging_tells_of_each_operation(project: Project, tmp_path: Path) -> None:
    logged = logged_by(project, tmp_path, code("intent_detection", 14))
    assert re.search(BEGINS, logged), logged


def test_mlflows_ui_shows_the_local_database(service: Service) -> None:
    [command] = lines("bash", "mlflow ui")
    assert command in code("intent_detection", 15)
    with mlflow_at(command, service.folder, service.project) as url:
        assert 3 == len(runs_of(url, DETECTION))


def test_a_separate_server_gets_the_runs(
    service: Service, tmp_path: Path, empty_sqlite: Path
) -> None:
    shutil.copy(empty_sqlite, tmp_path / "mlflow.db")
    first, second = lines("bash", "mlflow server")
    assert first == second
    folder = tmp_path / "cwd"
    folder.mkdir()
    [command] = lines("bash", "uvicorn")
    with (
        mlflow_at(second, tmp_path, service.project) as server,
        started(service.project, folder, command, MLFLOW_TRACKING_URI=server) as url,
    ):
        told = detect(url, {"message": "Hello there"})
        [run] = eventually(
            lambda: [one for one in runs_of(server, DETECTION) if one.info.status == "FINISHED"]
        )
    # A plain server gives its runs ids of its own.
    assert told["confidence"] == run.data.metrics["confidence_score"]
    assert told["intent"] == run.data.tags["detected_intent"]


def test_the_documents_cloud_storage_stops_nothing(project: Project, tmp_path: Path) -> None:
    [uri] = re.findall(r'"(s3://.+?)"', code("intent_detection", 3))
    with started(project, tmp_path, MLFLOW_TRACKING_URI=uri) as url:
        assert detect(url, {"message": "Hello there"})["intent"]
