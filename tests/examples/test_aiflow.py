"""examples/aiflow: a Django project that is tracked, over PostgreSQL and a real server."""

import json
import random
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from flowledger.testing.llm import StubLLM
from tests.conftest import postgres_database
from tests.examples.projects import Project, eventually, stub_settings
from tests.server_client import running
from tests.servers import answers_at, free_port

TRACKING = "/api/v1/mlflow/tracking"
PNG = b"\x89PNG\r\n\x1a\n"

SETTINGS = {
    "MLFLOW_ENABLED": "true",
    "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    "MLFLOW_BACKEND_STORE_URI": "postgresql://postgres:postgres@db:5432/radai_db",
}
FILES = {
    "__init__.py",
    "apps.py",
    "tracker.py",
    "decorators.py",
    "signals.py",
    "views.py",
    "urls.py",
    "INTEGRATION_EXAMPLES.py",
    "README.md",
}
EXPERIMENTS = {
    "pid_verification": "P&ID Design Verification",
    "pfd_conversion": "PFD to P&ID Conversion",
    "crs_analysis": "CRS Document Analysis",
    "visual_generation": "Visual Diagram Generation",
}

# A function for each decorator, and a result that is logged by hand.
OPERATIONS = """
import json
import django
django.setup()
import flowledger
from openai import OpenAI
from apps.mlflow_integration import decorators as track
from apps.mlflow_integration.tracker import mlflow_tracker

def ask(question):
    messages = [{"role": "user", "content": question}]
    return OpenAI().chat.completions.create(model="gpt-4o", messages=messages)

@track.track_gpt_vision("pid_verification", "valve_count")
def count_valves(drawing):
    return ask("How many valves are there?")

@track.track_gpt_vision("pid_verification", "title_block")
def read_title(drawing):
    return ask("What does the title block say?")

@track.track_gpt_text("pfd_conversion", "summary")
def summarize(flow):
    return {"text": ask(flow).choices[0].message.content, "confidence": 0.75}

@track.track_dalle_generation("pfd_conversion")
def draw(prompt):
    return "https://example.org/valve.png"

@track.track_rag_operation("pfd_conversion", "standards")
def look_up(question):
    return [{"text": "Standard 1", "score": 0.25}, {"text": "Standard 2", "score": 0.75}]

@track.track_custom_operation("crs_analysis", "validation")
def check(comments):
    return {"valid": all(comments), "score": 0.5}

@track.track_gpt_text("shift_reports", "handover")
def hand_over():
    return ask("What happened in this shift?")

did = {
    "count": count_valves(b"png").choices[0].message.content,
    "title": read_title(b"png").choices[0].message.content,
    "summary": summarize("Crude is heated."),
    "drawing": draw("a gate valve"),
    "passages": look_up("Which standard?"),
    "check": check(["Added", ""]),
    "handover": hand_over().choices[0].message.content,
    "logged": mlflow_tracker.log_experiment_result(
        feature="pfd_conversion", operation="import",
        params={"model": "gpt-4o-mini", "temperature": 0.25},
        metrics={"tokens_used": 420, "confidence": 0.5}, tags={"batch": "7"}),
    "enabled": mlflow_tracker.enabled,
    "tracking_uri": mlflow_tracker.tracking_uri,
    "stored": flowledger.flush(180),
}
print(json.dumps(did))
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
    with serving_site(postgres_server, tmp_path_factory.mktemp("aiflow"), SETTINGS) as site:
        yield site


@contextmanager
def serving_site(postgres_server: str, folder: Path, settings: dict[str, str]) -> Iterator[Site]:
    """The project, an MLflow server and their database, with settings but for their addresses."""
    with ExitStack() as stack:
        uri = stack.enter_context(postgres_database(postgres_server))
        stub = stack.enter_context(StubLLM())
        server = stack.enter_context(running(uri, folder, workers=1))
        environ = {**settings, **stub_settings(stub), "DJANGO_DEBUG": "true"}
        environ |= {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_BACKEND_STORE_URI": uri}
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
def did(site: Site) -> dict[str, Any]:
    """What the tracked functions returned, once all of it is stored."""
    found: dict[str, Any] = json.loads(site.project.python(OPERATIONS))
    assert found["stored"]
    return found


def test_the_integration_is_one_folder_of_the_project() -> None:
    folder = Project.folder("aiflow") / "apps" / "mlflow_integration"
    assert set() == FILES - {path.name for path in folder.iterdir()}


def test_a_tracked_function_returns_what_it_returned_before(did: dict[str, Any]) -> None:
    assert all(did[name] for name in ("count", "title", "handover"))
    assert 0.75 == did["summary"]["confidence"]
    assert "https://example.org/valve.png" == did["drawing"]
    assert [0.25, 0.75] == [passage["score"] for passage in did["passages"]]
    assert {"valid": False, "score": 0.5} == did["check"]


def test_decorated_functions_become_runs_with_model_time_tokens_and_outcome(
    did: dict[str, Any], site: Site
) -> None:
    found = {run.info.run_name: run for run in site.runs("P&ID Design Verification")}
    for operation in ("valve_count", "title_block"):
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
    assert found["valve_count"].data.params["function"].endswith(".count_valves")


def test_each_decorator_tracks_what_belongs_to_its_operation(
    did: dict[str, Any], site: Site
) -> None:
    found = {run.info.run_name: run.data for run in site.runs("PFD to P&ID Conversion")}
    assert 0.75 == found["summary"].metrics["confidence_score"]
    assert "a gate valve" in found["image_generation"].params["prompt"]
    retrieved = found["standards"].metrics
    assert (2, 0.5) == (retrieved["documents_count"], retrieved["similarity_avg"])
    [custom] = site.runs("CRS Document Analysis")
    assert "validation" == custom.info.run_name
    assert (0.5, 0.0) == (custom.data.metrics["score"], custom.data.metrics["valid"])


def test_manual_logging_is_a_run_with_its_params_metrics_and_tags(
    did: dict[str, Any], site: Site
) -> None:
    [run] = site.runs("PFD to P&ID Conversion", "tags.batch = '7'")
    assert did["logged"] == run.info.run_id
    assert ("gpt-4o-mini", "0.25") == (run.data.params["model"], run.data.params["temperature"])
    assert (420, 0.5) == (run.data.metrics["tokens_used"], run.data.metrics["confidence"])
    assert "import" == run.info.run_name


def test_the_tracker_says_whether_it_is_on_and_where_records_go(
    did: dict[str, Any], site: Site
) -> None:
    assert (True, site.mlflow) == (did["enabled"], did["tracking_uri"])


def test_a_new_feature_needs_no_more_than_a_decorator(did: dict[str, Any], site: Site) -> None:
    [run] = site.runs("shift_reports")
    assert "handover" == run.info.run_name


def test_every_feature_has_the_experiment_it_is_named_for(did: dict[str, Any], site: Site) -> None:
    answer = site.get(f"{TRACKING}/experiments/")
    assert (True, site.mlflow) == (answer["enabled"], answer["tracking_uri"])
    named = {one["key"]: one["name"] for one in answer["experiments"]}
    used = {key: EXPERIMENTS[key] for key in ("pid_verification", "pfd_conversion", "crs_analysis")}
    assert {**used, "shift_reports": "shift_reports"}.items() <= named.items()
    client = MlflowClient(site.mlflow)
    for one in answer["experiments"]:
        assert client.get_experiment(one["experiment_id"]).name == one["name"]


def test_recent_runs_are_listed_with_their_metrics_and_outcome(
    did: dict[str, Any], site: Site
) -> None:
    answer = site.get(f"{TRACKING}/runs/?feature=pfd_conversion&limit=10")
    assert "pfd_conversion" == answer["feature"]
    assert 1 <= len(answer["runs"]) <= 10
    [scored] = [run for run in answer["runs"] if run.get("metrics.confidence_score") == 0.75]
    assert "success" == scored["tags.status"]
    [stored] = site.runs("PFD to P&ID Conversion", "attributes.run_name = 'summary'")
    assert stored.info.run_id == scored["run_id"]
    assert stored.data.metrics["execution_time"] == scored["metrics.execution_time"]
    assert all(run["metrics.execution_time"] >= 0 for run in answer["runs"])
    assert 2 == len(site.get(f"{TRACKING}/runs/?feature=pfd_conversion&limit=2")["runs"])


def test_metrics_are_summed_up_over_the_runs_of_a_feature(did: dict[str, Any], site: Site) -> None:
    answer = site.get(f"{TRACKING}/metrics/?feature=pid_verification")
    assert "pid_verification" == answer["feature"]
    summed = answer["metrics"]
    assert (2, 100.0) == (summed["total_runs"], summed["success_rate"])
    metrics = [run.data.metrics for run in site.runs("P&ID Design Verification")]
    took = sum(one["latency_ms"] for one in metrics) / 2000
    assert pytest.approx(took) == summed["avg_execution_time"]
    assert pytest.approx(sum(one["cost_usd"] for one in metrics)) == summed["total_cost"]
    scored = site.get(f"{TRACKING}/metrics/?feature=pfd_conversion")["metrics"]
    assert (0.75 + 0.5) / 2 == scored["avg_confidence"]


def test_health_and_the_other_addresses_answer(site: Site) -> None:
    assert "healthy" == site.get(f"{TRACKING}/health/")["status"]
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
    off = {"MLFLOW_ENABLED": "false"}
    assert "5 False None" == site.project.run("python", "-c", SAME, environ=off).strip()


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


def test_the_processes_say_how_they_are(site: Site) -> None:
    with urllib.request.urlopen(f"{site.mlflow}/health", timeout=60) as answer:
        assert b"OK" == answer.read()
    told = site.project.run("python", "manage.py", "flowledger", "recent", "-n", "1")
    assert told


def test_nothing_is_written_beside_the_code(site: Site) -> None:
    assert [] == site.project.added()
