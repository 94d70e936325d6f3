"""aiflow's document beside its Django project: every block, over PostgreSQL and a real server."""

import json
import random
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from flowledger.testing.llm import StubLLM
from tests.conftest import postgres_database
from tests.examples.projects import Project, eventually
from tests.seeds import SEEDS, code
from tests.server_client import running
from tests.servers import answers_at, free_port

TRACKING = "/api/v1/mlflow/tracking"
PNG = b"\x89PNG\r\n\x1a\n"

# Runs blocks as they are printed: each gets the names its author left to the reader.
BLOCKS = """
import json, sys
import django
django.setup()
import flowledger
from openai import OpenAI

def chat(*_):
    question = [{"role": "user", "content": "What is wrong here?"}]
    return OpenAI().chat.completions.create(model="gpt-4o", messages=question)

for one in json.load(sys.stdin):
    names = {"gpt4_analyze": chat, "result": chat(), "spec": {"text": "x", "confidence": 0.75},
             "image_url": "https://example.org/pid.png", "documents": [{"text": "a", "score": 0.5}]}
    exec(compile(one["text"], f"block {one['number']}", "exec"), names)
    if one["call"]:
        print(repr(names[one["call"]](*one["arguments"])))
print("stored:", flowledger.flush(180))
"""


class Site(NamedTuple):
    """The project as it runs: Django, the MLflow server, and the environment of both."""

    project: Project
    url: str
    mlflow: str

    def get(self, path: str) -> Any:
        """What the REST API answers."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: bytes) -> Any:
        """What the platform answers."""
        with urllib.request.urlopen(self.url + path, body, timeout=60) as answer:
            return json.load(answer)

    def total(self, feature: str) -> int:
        """How many operations of a feature are stored."""
        path = f"{TRACKING}/metrics/?feature={feature}"
        try:
            return int(self.get(path)["metrics"]["total_runs"])
        except urllib.error.HTTPError:
            return 0

    def runs(self, experiment: str, filter_string: str = "") -> list[Run]:
        """What MLflow's own search finds in an experiment."""
        client = MlflowClient(self.mlflow)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return []
        return list(client.search_runs([found.experiment_id], filter_string))


@pytest.fixture(scope="module")
def site(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The servers that docker-compose would start, with the document's own variables."""
    folder = tmp_path_factory.mktemp("aiflow")
    with ExitStack() as stack:
        uri = stack.enter_context(postgres_database(postgres_server))
        stub = stack.enter_context(StubLLM())
        server = stack.enter_context(running(uri, folder, workers=1))
        environ = dict(re.findall(r"^(\w+)=(.+)$", code("aiflow", 17), re.MULTILINE))
        assert {"MLFLOW_ENABLED", "MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI"} == {*environ}
        environ |= {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_BACKEND_STORE_URI": uri}
        environ |= {"OPENAI_BASE_URL": stub.url, "OPENAI_API_KEY": "stub", "DJANGO_DEBUG": "true"}
        environ |= {"DJANGO_SETTINGS_MODULE": "aiflow.settings"}
        project = Project("aiflow", folder, environ)
        project.run("python", "manage.py", "migrate", "-v0")
        address = f"127.0.0.1:{free_port()}"
        django = project.start("python", "manage.py", "runserver", "--noreload", address)
        try:
            answers_at(f"http://{address}/api/docs/", django)
            yield Site(project, f"http://{address}", server.url)
        finally:
            django.terminate()
            django.wait()


@pytest.fixture(scope="module")
def printed(site: Site) -> str:
    """What the document's Python prints, run as it is written."""
    called: list[tuple[int, str, list[str]]] = [
        (3, "analyze_pid_diagram", ["image"]),
        (4, "", []),
        (5, "extract_diagram_data", ["image"]),
        (6, "generate_specification", ["data"]),
        (7, "generate_pid_diagram", ["a pump"]),
        (8, "query_knowledge_base", ["pumps?"]),
        (9, "validate_document", ["doc"]),
        (19, "new_ai_function", []),
        (21, "", []),
    ]
    asked = [
        {"number": number, "text": code("aiflow", number), "call": name, "arguments": arguments}
        for number, name, arguments in called
    ]
    return site.project.run("python", "-c", BLOCKS, stdin=json.dumps(asked))


@pytest.fixture(scope="module")
def blocks_run(site: Site, printed: str) -> Site:
    """The same, with what it did stored."""
    assert printed.endswith("stored: True\n")
    return site


def test_the_folder_is_laid_out_as_the_document_draws_it() -> None:
    names = re.findall(r"── (\S+)", code("aiflow", 1))
    folder = Project.folder("aiflow") / "apps" / "mlflow_integration"
    assert [] == [name for name in names if not (folder / name).is_file()]


def test_decorated_functions_become_runs_with_model_time_tokens_and_outcome(
    blocks_run: Site,
) -> None:
    found = {run.info.run_name: run for run in blocks_run.runs("P&ID Design Verification")}
    for operation in ("diagram_analysis", "image_analysis"):
        run = found[operation]
        assert ("gpt-4o", "pid_verification") == (
            run.data.params["model"],
            run.data.params["feature"],
        )
        assert operation == run.data.params["operation"]
        assert run.data.metrics["tokens_used"] > 0
        assert run.data.metrics["cost_usd"] > 0
        assert run.data.metrics["execution_time"] > 0
        assert ("success", "FINISHED") == (run.data.tags["status"], run.info.status)
    assert found["diagram_analysis"].data.params["function"].endswith(".analyze_pid_diagram")


def test_each_decorator_tracks_what_the_document_says(blocks_run: Site) -> None:
    found = {run.info.run_name: run.data for run in blocks_run.runs("PFD to P&ID Conversion")}
    texts = blocks_run.runs("PFD to P&ID Conversion", "metrics.confidence_score = 0.75")
    assert ["spec_generation"] == [run.info.run_name for run in texts]
    assert "a pump" in found["image_generation"].params["prompt"]
    retrieved = found["knowledge_retrieval"].metrics
    assert (1, 0.5) == (retrieved["documents_count"], retrieved["similarity_avg"])
    [custom] = blocks_run.runs("CRS Document Analysis")
    assert (0.95, 1.0) == (custom.data.metrics["score"], custom.data.metrics["valid"])


def test_manual_logging_is_a_run_with_its_params_metrics_and_tags(blocks_run: Site) -> None:
    [run] = blocks_run.runs("PFD to P&ID Conversion", "tags.version = '2.0'")
    assert ("gpt-4o", "0.7") == (run.data.params["model"], run.data.params["temperature"])
    assert (1500, 0.95) == (run.data.metrics["tokens_used"], run.data.metrics["confidence"])
    assert "spec_generation" == run.info.run_name


def test_the_check_of_the_connection_prints_whether_and_where(site: Site, printed: str) -> None:
    assert ["MLflow enabled: True", f"Tracking URI: {site.mlflow}"] == printed.splitlines()[-3:-1]
    assert "{'valid': True, 'score': 0.95}" in printed


def test_a_new_feature_needs_no_more_than_a_decorator(blocks_run: Site) -> None:
    [run] = blocks_run.runs("new_feature")
    assert "new_operation" == run.info.run_name


def test_the_experiments_have_the_names_of_the_table_and_the_answer_its_shape(
    blocks_run: Site,
) -> None:
    assert f"GET {TRACKING}/experiments/" == code("aiflow", 10).strip()
    told = blocks_run.get(f"{TRACKING}/experiments/")
    assert_shaped(told, json.loads(code("aiflow", 11)))
    assert (True, blocks_run.mlflow) == (told["enabled"], told["tracking_uri"])
    table = re.findall(r"^\| [\w& ]+ \| `(.+?)` \|", page(), re.MULTILINE)
    assert 4 == len(table)
    named = {one["key"]: one["name"] for one in told["experiments"]}
    assert {"pid_verification": table[0], "pfd_conversion": table[1], "crs_analysis": table[2]} == {
        key: named[key] for key in ("pid_verification", "pfd_conversion", "crs_analysis")
    }


def test_recent_runs_have_the_documents_shape(blocks_run: Site) -> None:
    path = code("aiflow", 12).strip().removeprefix("GET ")
    told = blocks_run.get(path)
    shown = json.loads(code("aiflow", 13))
    assert "pfd_conversion" == told["feature"]
    assert 1 <= len(told["runs"]) <= 10
    [scored] = [run for run in told["runs"] if run.get("metrics.confidence_score") == 0.75]
    assert_shaped(scored, shown["runs"][0])
    assert all(run["metrics.execution_time"] >= 0 for run in told["runs"])


def test_aggregated_metrics_have_the_documents_shape(blocks_run: Site) -> None:
    told = blocks_run.get(code("aiflow", 14).strip().removeprefix("GET "))
    assert_shaped(told, json.loads(code("aiflow", 15)))
    assert (2, 100.0) == (told["metrics"]["total_runs"], told["metrics"]["success_rate"])


def test_health_and_the_other_addresses_answer(site: Site) -> None:
    assert "healthy" == site.get(code("aiflow", 16).strip().removeprefix("GET "))["status"]
    assert ["http://localhost:5000"] == re.findall(r"http\S+", code("aiflow", 2))
    for url in (f"{site.mlflow}/", f"{site.mlflow}/health", f"{site.url}/api/docs/"):
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert 200 == answer.status
            page = answer.read().decode()
    assert f'href="{TRACKING}/health/"' in page


def test_those_who_are_no_staff_read_nothing_outside_of_development(site: Site) -> None:
    production = {"DJANGO_DEBUG": "false", "DJANGO_SECRET_KEY": "x", "MLFLOW_ENABLED": "true"}
    told = site.project.run("python", "-c", ASK_AS_NOBODY, environ=production)
    assert "403 200" == told.strip()


ASK_AS_NOBODY = f"""
import django
django.setup()
from django.test import Client
client = Client(SERVER_NAME="localhost")
pages = ("runs", "health")
print(*(client.get(f"{TRACKING}/{{page}}/").status_code for page in pages))
"""


def test_saved_models_are_runs_with_their_numbers_and_change_no_average(site: Site) -> None:
    report = site.post("/api/v1/pid/verify/?name=P-101", PNG)
    checked = site.post("/api/v1/crs/check/?name=sheet", b"1 | A | Wrong | Yes\n2 | B | Wrong |")
    assert (False, 2, 0.5) == (checked["valid"], checked["comments"], checked["score"])

    def stored(experiment: str, name: str, metric: str) -> Run | None:
        found = site.runs(experiment, f"attributes.run_name = '{name}'")
        return next((run for run in found if metric in run.data.metrics), None)

    saved = eventually(
        lambda: stored("P&ID Design Verification", "pidanalysisreport.changed", "total_issues")
    )
    assert len(report["issues"]) == saved.data.metrics["total_issues"]
    assert report["confidence"] == saved.data.metrics["confidence_score"]
    assert "completed" == saved.data.params["status"]
    sheet = eventually(
        lambda: stored("CRS Document Analysis", "crsdocument.created", "processing_time")
    )
    assert "comment_sheet" == sheet.data.params["document_type"]
    operations = site.runs("CRS Document Analysis", "params.operation = 'validation'")
    assert len(operations) == site.total("crs_analysis")


def test_a_conversion_is_counted_with_the_look_up_and_the_picture_it_needs(site: Site) -> None:
    told = site.post("/api/v1/pfd/convert/?name=crude", b"A pump and a heat exchanger.")
    assert told["specification"]
    [picture] = eventually(lambda: site.runs("Visual Diagram Generation"))
    assert ("dall-e-3", 0.04) == (picture.data.params["model"], picture.data.metrics["cost_usd"])


def test_the_integration_examples_run(site: Site) -> None:
    module = "apps.mlflow_integration.INTEGRATION_EXAMPLES"
    told = site.project.run("python", "-m", module)
    assert "raised as ever: NotFoundError" in told

    def failed() -> list[Run]:
        return site.runs("PFD to P&ID Conversion", "attributes.status = 'FAILED'")

    [run] = eventually(failed)
    assert ("NotFoundError", "model_comparison") == (
        run.data.tags["error_type"],
        run.info.run_name,
    )


def test_averages_rates_and_costs_agree_with_a_recount_by_hand_over_5000_runs(site: Site) -> None:
    dice = random.Random(5)
    results = [
        {
            "execution_time": round(dice.uniform(0.1, 9), 3),
            "confidence": round(dice.random(), 3),
            "cost": round(dice.uniform(0, 0.1), 4),
            "failed": dice.random() < 0.07,
        }
        for _ in range(5000)
    ]
    told = site.project.run("python", "-c", LOG_RESULTS, stdin=json.dumps(results))
    assert "stored: True" == told.strip()
    metrics = site.get(f"{TRACKING}/metrics/?feature=recount")["metrics"]
    worked = sum(not one["failed"] for one in results)
    assert 5000 == metrics["total_runs"]
    assert metrics["success_rate"] == pytest.approx(100 * worked / 5000)
    for shown, given, divisor in (
        ("avg_execution_time", "execution_time", 5000),
        ("avg_confidence", "confidence", 5000),
        ("total_cost", "cost", 1),
    ):
        assert metrics[shown] == pytest.approx(sum(one[given] for one in results) / divisor)


LOG_RESULTS = """
import json, sys
import django
django.setup()
import flowledger
from apps.mlflow_integration.tracker import mlflow_tracker
for one in json.load(sys.stdin):
    status = "failed" if one.pop("failed") else "success"
    mlflow_tracker.log_experiment_result("recount", "try", {}, one, {"status": status})
print("stored:", flowledger.flush(120))
"""


def test_switched_off_a_decorator_is_a_no_op(site: Site) -> None:
    [line] = [line for line in code("aiflow", 18).splitlines() if not line.startswith("#")]
    name, value = line.split("=")
    assert "5 False None" == site.project.run("python", "-c", SAME, environ={name: value}).strip()


SAME = """
import django
django.setup()
from apps.mlflow_integration import decorators
from apps.mlflow_integration.tracker import mlflow_tracker
makers = [getattr(decorators, name) for name in dir(decorators) if name.startswith("track_")]
def function(): ...
same = [make("feature", "operation")(function) is function for make in makers]
print(sum(same), mlflow_tracker.enabled, mlflow_tracker.log_experiment_result("f", "o"))
"""


def test_with_mlflow_unreachable_the_application_starts_and_works(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}", "FLOWLEDGER_HOME": ""}
    nowhere["FLOWLEDGER_HOME"] = str(site.project.home.parent / "away")
    told = site.project.run("python", "-c", START, environ=nowhere)
    took, answer, raised = told.split()
    assert ("7", "ValueError") == (answer, raised)
    waiting = list(Path(nowhere["FLOWLEDGER_HOME"]).rglob("*.journal"))
    assert 1 == len(waiting)
    with capsys.disabled():
        print(f"\naiflow with MLflow unreachable: {float(took):.0f} ms beside Django's own start")


# What is ours: the two applications' part of django.setup(), the first call included.
START = """
import time
from django.conf import settings
settings.INSTALLED_APPS
import django
ours = ("flowledger.integrations.django", "apps.mlflow_integration")
settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name not in ours]
django.setup()
from django.apps import apps
started = time.perf_counter()
apps.set_installed_apps([*settings.INSTALLED_APPS, *ours])
from apps.mlflow_integration.decorators import track_gpt_text
@track_gpt_text("f", "o")
def add(a, b):
    if b is None:
        raise ValueError
    return a + b
answer = add(3, 4)
took = 1000 * (time.perf_counter() - started)
try:
    add(3, None)
except ValueError as error:
    print(took, answer, type(error).__name__)
"""


def test_docker_has_equals_here(site: Site) -> None:
    """Block 20 looks at containers; here the same is asked of the processes."""
    assert 3 == code("aiflow", 20).count("docker-compose")
    with urllib.request.urlopen(f"{site.mlflow}/health", timeout=60) as answer:
        assert b"OK" == answer.read()
    told = site.project.run("python", "manage.py", "flowledger", "recent", "-n", "1")
    assert told


def test_nothing_is_written_beside_the_code(site: Site) -> None:
    assert [] == site.project.added()


def assert_shaped(told: Any, shown: Any) -> None:
    """Everything that the document shows is there, with values of its kind."""
    if isinstance(shown, dict):
        assert shown.keys() <= told.keys()
        for key, value in shown.items():
            assert_shaped(told[key], value)
    elif isinstance(shown, list):
        assert_shaped(told[0], shown[0])
    elif isinstance(shown, float | int) and not isinstance(shown, bool):
        assert isinstance(told, float | int)
    else:
        assert isinstance(told, type(shown))


def page() -> str:
    """The document."""
    return (SEEDS / "aiflow.md").read_text(encoding="utf-8")
