"""examples/intent_detection: a service that is watched, over real HTTP and SQLite."""

import json
import re
import shutil
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from packaging.requirements import Requirement

from flowledger.testing.llm import StubLLM
from flowledger.testing.processes import serving
from tests.examples.projects import Project, eventually
from tests.servers import free_port

API = "/api/analytics/mlflow"
DETECTION = "dspy_intent_detection"
SERVICE = "uvicorn app.main:app --port 8000"
UI = "mlflow ui --port 5000"
SERVER = "mlflow server --host 127.0.0.1 --port 5000"
ENDPOINTS = (
    ("GET", "overview?days=7"),
    ("GET", "trends?days=30"),
    ("GET", "errors?days=7"),
    ("GET", "model-comparison"),
    ("GET", "prompt-analysis"),
    ("GET", "report?days=30"),
    ("GET", "health"),
    ("POST", "experiments/recreate"),
)
METRICS = {
    "confidence_score",
    "response_time_ms",
    "template_match_rate",
    "available_workflow_templates",
    "available_agent_templates",
}
TAGS = {
    "user_role",
    "current_module",
    "current_tab",
    "detected_intent",
    "dspy_version",
    "prompt_version",
}
PARAMS = {
    "model_name",
    "message_length",
    "message_word_count",
    "requires_workflow",
    "category_source",
}
MESSAGES = (
    {"message": "Automate the approval of invoices", "user_role": "admin", "current_tab": "list"},
    {"message": "What is this?", "user_role": "user", "current_module": "reports"},
    {"message": "Ask the analyst", "user_role": "user", "current_module": "agents"},
)


class Service(NamedTuple):
    """The service as it runs: its folder is the working directory, where `mlflow.db` is made."""

    project: Project
    folder: Path
    url: str
    answers: list[Any]

    def get(self, path: str) -> Any:
        """What an endpoint answers."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=60) as answer:
            return json.load(answer)

    def shell(self, command: str, **environ: str) -> str:
        """What a line of shell prints."""
        return self.project.run("bash", "-c", command, cwd=self.folder, environ=environ)

    def runs(self, experiment: str = DETECTION) -> list[Run]:
        """MLflow's own list of an experiment's runs."""
        return runs_of(f"sqlite:///{self.folder / 'mlflow.db'}", experiment)


def runs_of(uri: str, experiment: str) -> list[Run]:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


@contextmanager
def started(
    project: Project, folder: Path, command: str = SERVICE, **environ: str
) -> Iterator[str]:
    """The service in this folder by a command, on a port of loopback."""
    port = str(free_port())
    command = command.replace("0.0.0.0", "127.0.0.1").replace("8000", port)
    url = f"http://127.0.0.1:{port}"
    inside = ["sh", "-c", f"cd '{folder}' && exec {command}"]
    log = folder.parent / "service.log"
    with serving(inside, f"{url}/docs", log, {**project.environ, **environ}):
        yield url


def detect(url: str, message: dict[str, str]) -> Any:
    """What the service detects."""
    headers = {"Content-Type": "application/json", "X-Session-ID": message["message"]}
    asked = urllib.request.Request(
        f"{url}/api/intent/detect", json.dumps(message).encode(), headers
    )
    with urllib.request.urlopen(asked, timeout=90) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The example with a stub for its model, and nothing that says where runs go."""
    with StubLLM() as stub:
        environ = {"OPENAI_BASE_URL": stub.url, "OPENAI_API_KEY": "stub"}
        yield Project("intent_detection", tmp_path_factory.mktemp("intents"), environ)


@pytest.fixture(scope="module")
def service(project: Project) -> Iterator[Service]:
    """The service with its defaults, after three messages of three sessions."""
    folder = project.home.parent / "cwd"
    folder.mkdir()
    with started(project, folder) as url:
        answers = [detect(url, message) for message in MESSAGES]
        running = Service(project, folder, url, answers)
        eventually(lambda: running.get(f"{API}/health")["total_runs"] == len(MESSAGES))
        yield running


def test_the_default_needs_no_server_and_writes_nothing_but_its_database(
    service: Service,
) -> None:
    assert "MLFLOW_TRACKING_URI" not in service.project.environ
    names = {path.name for path in service.folder.iterdir()}
    assert {"mlflow.db"} == names - {"mlflow.db-shm", "mlflow.db-wal"}
    assert [] == service.project.added()


def test_each_run_has_every_metric_tag_and_parameter(service: Service) -> None:
    runs = service.runs()
    assert len(MESSAGES) == len(runs)
    for run in runs:
        assert set() == METRICS - run.data.metrics.keys()
        assert set() == TAGS - run.data.tags.keys()
        assert set() == PARAMS - run.data.params.keys()


def test_a_runs_values_are_those_of_its_request_and_answer(service: Service) -> None:
    runs = {run.info.run_id: run.data for run in service.runs()}
    assert {answer["run_id"] for answer in service.answers} == runs.keys()
    for asked, told in zip(MESSAGES, service.answers, strict=True):
        run, text = runs[told["run_id"]], asked["message"]
        assert (asked["user_role"], told["intent"]) == (
            run.tags["user_role"],
            run.tags["detected_intent"],
        )
        assert asked.get("current_module", "home") == run.tags["current_module"]
        assert version("dspy") == run.tags["dspy_version"]
        assert told["confidence"] == run.metrics["confidence_score"]
        assert (3, 2) == (
            run.metrics["available_workflow_templates"],
            run.metrics["available_agent_templates"],
        )
        assert float(told["template"] is not None) == run.metrics["template_match_rate"]
        assert (str(len(text)), str(len(text.split()))) == (
            run.params["message_length"],
            run.params["message_word_count"],
        )
        assert ("gpt-4o-mini", "fallback") == (
            run.params["model_name"],
            run.params["category_source"],
        )
        assert str(told["requires_workflow"]) == run.params["requires_workflow"]
        assert run.metrics["total_tokens"] > 0
        assert run.metrics["cost_usd"] > 0


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_every_endpoint_answers_curl(service: Service, method: str, path: str) -> None:
    command = f'curl --fail --silent -X {method} "{service.url}{API}/{path}"'
    assert "detail" not in json.loads(service.shell(command))


def test_the_overview_says_what_happened(service: Service) -> None:
    told = service.get(f"{API}/overview?days=7")
    assert (3, 100.0) == (told["total_runs"], told["success_rate"])
    given = [answer["confidence"] for answer in service.answers]
    assert told["avg_confidence"] == pytest.approx(sum(given) / 3)
    assert told["avg_response_time_ms"] > 0
    assert {"admin": 1, "user": 2} == told["user_role_distribution"]
    assert {"home": 1, "reports": 1, "agents": 1} == told["module_distribution"]
    assert 3 == sum(told["intent_distribution"].values())
    assert [3] == [day["request_count"] for day in service.get(f"{API}/trends?days=30")["trends"]]


def test_prompt_versions_and_strategies_can_be_compared(service: Service) -> None:
    versions = service.get(f"{API}/prompt-analysis")["prompt_analysis"]
    assert {run.data.tags["prompt_version"] for run in service.runs()} == {
        one["prompt_version"] for one in versions
    }
    told = service.get(f"{API}/strategies")["strategies"]
    assert 3 == sum(one["run_count"] for one in told)
    assert {one["strategy"] for one in told} <= {"direct", "stepwise"}


def test_the_optimiser_records_its_scores_and_what_it_tried(service: Service) -> None:
    told = service.shell("python -m app.optimize", FLOWLEDGER_TRACKING_URI="")
    run_id = told.split()[-1]

    def stored() -> list[Run] | None:
        found = service.runs(OPTIMIZATION)
        ended = {run.info.run_id for run in found if run.info.status == "FINISHED"}
        return found if run_id in ended else None

    runs = eventually(stored)
    [own] = [run for run in runs if run.info.run_id == run_id]
    tried = [run for run in runs if run.info.run_name == "evaluate"]
    scores = {run.data.metrics["score"] for run in tried}
    assert 2 == len(tried)
    assert scores == {own.data.metrics["score_before"], own.data.metrics["score_after"]}


OPTIMIZATION = "dspy_prompt_optimization"


def test_a_metric_and_a_tag_of_ones_own_are_on_the_run(
    project: Project, tmp_path: Path, empty_sqlite: Path
) -> None:
    metric = ('QUEUED = "queued_seconds"', "mlflow.log_metric(self.QUEUED, custom_value)")
    tag = ('SHOP = "shop"', "mlflow.set_tag(self.SHOP, custom_value)")
    [run] = runs_of(extended(project, tmp_path, empty_sqlite, metric, tag), DETECTION)
    assert (0.5, "own") == (run.data.metrics["queued_seconds"], run.data.tags["shop"])


def extended(
    project: Project,
    folder: Path,
    empty_sqlite: Path,
    metric: tuple[str, str],
    tag: tuple[str, str],
) -> str:
    """Detect once with a constant and a call more for a metric and for a tag in the tracker.

    Returns:
        The database with that run.
    """
    shutil.copy(empty_sqlite, folder / "mlflow.db")
    copied = folder / "app"
    shutil.copytree(project.path / "app", copied)
    config = copied / "services" / "mlflow_config.py"
    text = config.read_text()
    text = text.replace('    FEATURE = "', f'    {metric[0]}\n    {tag[0]}\n    FEATURE = "', 1)
    text = within(text, "log_prediction_result", "custom_value = 0.5", metric[1])
    text = within(text, "start_intent_detection_run", "custom_value = 'own'", tag[1])
    config.write_text(text)
    environ = {"PYTHONPATH": str(folder), "FLOWLEDGER_HOME": str(folder / "home")}
    told = project.run("python", "-c", DETECT, cwd=folder, environ=environ)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    assert [told.strip()] == [run.info.run_id for run in runs_of(uri, DETECTION)]
    return uri


DETECT = """
import flowledger
from app.services.intent_service import IntentService
place = {"user_role": "user", "current_module": "home", "current_tab": "list"}
print(IntentService().detect("Hello", place, "s")["run_id"])
assert flowledger.flush(90)
"""


def within(text: str, method: str, *statements: str) -> str:
    """The source with statements at the end of a method of the tracker."""
    ends = {
        "log_prediction_result": '        mlflow.set_tag("detected_intent", result["intent"])\n',
        "start_intent_detection_run": '        logger.debug("run %s begins", call.id)\n',
    }
    assert 1 == text.count(ends[method])
    more = "".join(f"        {statement}\n" for statement in statements)
    return text.replace(ends[method], more + ends[method])


def test_what_a_model_raises_is_a_failed_run_with_its_type(
    project: Project, tmp_path: Path, empty_sqlite: Path
) -> None:
    shutil.copy(empty_sqlite, tmp_path / "mlflow.db")
    with started(project, tmp_path, INTENT_MODEL="openai/gpt-4o-mini?status=401") as url:
        with pytest.raises(urllib.error.HTTPError) as raised:
            detect(url, {"message": "Hello"})
        assert 502 == raised.value.code
        eventually(lambda: json_of(f"{url}{API}/errors?days=7")["total_errors"] == 1)
        [error] = json_of(f"{url}{API}/errors?days=7")["recent_errors"]
    assert ("user", "home", "overview") == (error["user_role"], error["module"], error["tab"])
    [run] = runs_of(f"sqlite:///{tmp_path / 'mlflow.db'}", DETECTION)
    assert ("FAILED", error["error_type"]) == (run.info.status, run.data.tags["error_type"])


def json_of(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def test_categories_come_from_the_database_where_there_is_one(
    project: Project, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "own.db")) as database:
        database.executescript(
            "CREATE TABLE intent_categories (name, requires_workflow);"
            "CREATE TABLE templates (kind, name);"
            "INSERT INTO intent_categories VALUES ('refund', 1);"
            "INSERT INTO templates VALUES ('workflow', 'refund below 50');"
        )
    environ = {"INTENT_DATABASE": str(tmp_path / "own.db")}
    told = project.run("python", "-c", CATALOG, environ=environ)
    assert "{'refund': True} ['refund below 50'] [] database" == told.strip()
    environ["INTENT_DATABASE"] = str(tmp_path / "none.db")
    assert "fallback" == project.run("python", "-c", CATALOG, environ=environ).split()[-1]


CATALOG = "from app.services.catalog import catalog; print(*catalog())"


def test_what_is_to_be_installed_is_installed(project: Project) -> None:
    wanted = (project.path / "requirements.txt").read_text().splitlines()
    assert "mlflow>=2.8.0" in wanted
    for line in wanted:
        if not line.startswith(".."):
            requirement = Requirement(line)
            assert requirement.specifier.contains(version(requirement.name)), line
    [ours] = [line for line in wanted if line.startswith("..")]
    assert (project.path / ours.partition("[")[0] / "pyproject.toml").is_file()


def test_mlflow_says_which_tracking_uri_is_set(project: Project) -> None:
    environ = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    told = project.run("python", "-c", TRACKING, environ=environ)
    assert "sqlite:///mlflow.db" == told.strip()


TRACKING = "import mlflow; print(mlflow.get_tracking_uri())"


def test_debug_logging_tells_of_each_operation(project: Project, tmp_path: Path) -> None:
    logged = logged_by(project, tmp_path, "export LOG_LEVEL=DEBUG")
    assert 1 == len(re.findall(BEGINS, logged)), logged


BEGINS = r"DEBUG:app.services.mlflow_config:run \w+ begins"


def logged_by(project: Project, folder: Path, setting: str) -> str:
    """What the service logs of one message after a line of shell."""
    environ = {"FLOWLEDGER_ENABLED": "false", "PYTHONPATH": str(project.path)}
    done = subprocess.run(
        ["bash", "-c", f"{setting}\nexec python -c '{TELL}'"],
        cwd=folder,
        env={**project.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stderr


TELL = (
    "from app.main import service; "
    'service.detect("Hi", {"user_role": "u", "current_module": "m", "current_tab": "t"}, "s")'
)


def test_mlflows_ui_shows_the_local_database(service: Service) -> None:
    with mlflow_at(UI, service.folder, service.project) as url:
        assert 3 == len(runs_of(url, DETECTION))


def test_a_separate_server_gets_the_runs_and_a_plain_one_is_told_to_have_no_ledger(
    service: Service, tmp_path: Path, empty_sqlite: Path
) -> None:
    shutil.copy(empty_sqlite, tmp_path / "mlflow.db")
    folder = tmp_path / "cwd"
    folder.mkdir()
    with (
        mlflow_at(SERVER, tmp_path, service.project) as server,
        started(service.project, folder, MLFLOW_TRACKING_URI=server) as url,
    ):
        told = detect(url, {"message": "Hello there"})

        def stored() -> list[Run]:
            found = runs_of(server, DETECTION)
            return [run for run in found if run.info.status == "FINISHED"]

        [run] = eventually(stored)
        assert told["confidence"] == run.data.metrics["confidence_score"]
        assert told["intent"] == run.data.tags["detected_intent"]
        with pytest.raises(urllib.error.HTTPError) as raised:
            json_of(f"{url}{API}/overview")
        assert 503 == raised.value.code
        assert "start it with `flowledger server`" in raised.value.read().decode()
    assert [] == list(folder.iterdir())


@contextmanager
def mlflow_at(command: str, folder: Path, project: Project) -> Iterator[str]:
    """A server of MLflow's own by a command, on a port of loopback."""
    port = str(free_port())
    command = command.replace("0.0.0.0", "127.0.0.1").replace("5000", port)
    url = f"http://127.0.0.1:{port}"
    inside = ["sh", "-c", f"cd '{folder}' && exec {command} --workers 1"]
    with serving(inside, f"{url}/health", folder.parent / "mlflow-ui.log", project.environ):
        yield url


def test_averages_rates_and_costs_agree_with_a_recount_by_hand_over_5000_runs(
    project: Project, tmp_path: Path, empty_sqlite: Path
) -> None:
    shutil.copy(empty_sqlite, tmp_path / "mlflow.db")
    own = {"FLOWLEDGER_HOME": str(tmp_path / "home"), "PYTHONPATH": str(project.path)}
    told = json.loads(project.run("python", "-c", RECOUNT, cwd=tmp_path, environ=own))
    given, overview, models = told["given"], told["overview"], told["models"]
    worked = [one for one in given if not one["failed"]]
    assert (5000, len(worked)) == (overview["total_runs"], overview["successful_runs"])
    assert overview["success_rate"] == pytest.approx(100 * len(worked) / 5000)
    assert overview["avg_confidence"] == pytest.approx(
        sum(one["confidence"] for one in worked) / len(worked)
    )
    assert overview["template_match_rate"] == pytest.approx(
        sum(one["template"] is not None for one in worked) / len(worked)
    )
    cost = sum(one["tokens"] * 0.15e-6 + 10 * 0.60e-6 for one in worked)  # gpt-4o-mini's prices
    assert overview["total_cost_usd"] == pytest.approx(cost)
    roles = [one["user_role"] for one in given]
    assert {role: roles.count(role) for role in {*roles}} == overview["user_role_distribution"]
    assert [overview["success_rate"]] == [one["success_rate"] for one in models]
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        [(mean,)] = database.execute("SELECT avg(value) FROM metrics WHERE key = 'latency_ms'")
    assert overview["avg_response_time_ms"] == pytest.approx(mean)


RECOUNT = f"""
import json, random
import flowledger
from fastapi.testclient import TestClient
from fastapi import FastAPI
from app.services.intent_service import DetectIntent
from app.services.mlflow_config import DSPyMLflowTracker
from app.services.mlflow_dashboard import router
dice, tracker, given = random.Random(5), DSPyMLflowTracker(), []
for _ in range(5000):
    one = {{"confidence": dice.random(), "tokens": dice.randrange(10, 900),
           "template": dice.choice([None, "a", "b"]), "failed": dice.random() < 0.07,
           "user_role": dice.choice(["admin", "user", "guest"])}}
    given.append(one)
    place = {{"user_role": one["user_role"], "current_module": "m", "current_tab": "t"}}
    tracker.start_intent_detection_run("Hi", place, "openai/gpt-4o-mini", DetectIntent)
    if one["failed"]:
        tracker.log_error(TimeoutError("late"))
    else:
        found = {{"intent": "question", "requires_workflow": False, "category_source": "fallback"}}
        tracker.log_prediction_result(
            {{**found, "confidence": one["confidence"], "template": one["template"]}}, 1.0,
            {{"workflow": 1, "agent": 1}},
            {{"prompt_tokens": one["tokens"], "completion_tokens": 10}})
    tracker.end_run()
assert flowledger.flush(120)
app = FastAPI()
app.include_router(router())
client = TestClient(app)
print(json.dumps({{"given": given, "overview": client.get("{API}/overview?days=7").json(),
    "models": client.get("{API}/model-comparison").json()["model_comparison"]}}))
"""


def test_with_mlflow_unreachable_the_service_starts_and_works(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    own = {"MLFLOW_TRACKING_URI": nowhere, "FLOWLEDGER_HOME": str(tmp_path / "home")}
    own["FLOWLEDGER_EXIT_TIMEOUT"] = "0.1"
    told = project.run("python", "-c", START, cwd=tmp_path, environ=own)
    took, intent, status = told.splitlines()[-1].split()
    assert ("503", True) == (status, intent in ("create_workflow", "run_workflow", *ANSWERS))
    assert 1 == len(list((tmp_path / "home").rglob("*.journal")))
    with capsys.disabled():
        print(f"\nintent_detection with MLflow unreachable: {float(took):.0f} ms beside FastAPI")


ANSWERS = ("ask_agent", "question")
# What is ours: everything that is imported and done besides FastAPI, DSPy and the analytics' SQL.
START = f"""
import time
import dspy, fastapi, httpx, pydantic, sqlalchemy
from fastapi.testclient import TestClient
started = time.perf_counter()
import flowledger
flowledger.set_tag("x", "y")
with flowledger.job("first"):
    pass
took = 1000 * (time.perf_counter() - started)
from app.main import app
client = TestClient(app)
told = client.post("/api/intent/detect", json={{"message": "Hi"}}).json()
print(took, told["intent"], client.get("{API}/overview").status_code)
"""


def test_a_tracking_uri_that_keeps_no_runs_stops_nothing(project: Project, tmp_path: Path) -> None:
    own = {"MLFLOW_TRACKING_URI": "s3://a-bucket/runs", "FLOWLEDGER_HOME": str(tmp_path / "home")}
    told = project.run("python", "-c", CLOUD, cwd=tmp_path, environ=own)
    assert "200 404" == told.splitlines()[-1]
    assert [] == list(tmp_path.iterdir())


CLOUD = f"""
from fastapi.testclient import TestClient
from app.main import app
client = TestClient(app)
print(client.post("/api/intent/detect", json={{"message": "Hi"}}).status_code,
      client.get("{API}/overview").status_code)
"""
