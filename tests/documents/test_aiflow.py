"""aiflow's document: its blocks, requests and answers, against its Django project."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.documents.seeds import code, page
from tests.examples.projects import Project
from tests.examples.test_aiflow import (
    EXPERIMENTS,
    FILES,
    SAME,
    SETTINGS,
    TRACKING,
    Site,
    serving_site,
)

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


@pytest.fixture(scope="module")
def site(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The servers that docker-compose would start, with the document's own variables."""
    settings = dict(re.findall(r"^(\w+)=(.+)$", code("aiflow", 17), re.MULTILINE))
    assert SETTINGS == settings
    with serving_site(postgres_server, tmp_path_factory.mktemp("aiflow"), settings) as site:
        yield site


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
    names = {*re.findall(r"── (\S+)", code("aiflow", 1))}
    assert FILES == names
    folder = Project.folder("aiflow") / "apps" / "mlflow_integration"
    assert set() == names - {path.name for path in folder.iterdir()}


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
    table = re.findall(r"^\| [\w& ]+ \| `(.+?)` \|", page("aiflow"), re.MULTILINE)
    assert list(EXPERIMENTS.values()) == table
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


def test_health_answers_at_the_documents_path(site: Site) -> None:
    assert "healthy" == site.get(code("aiflow", 16).strip().removeprefix("GET "))["status"]
    assert ["http://localhost:5000"] == re.findall(r"http\S+", code("aiflow", 2))


def test_switched_off_a_decorator_is_a_no_op(site: Site) -> None:
    [line] = [line for line in code("aiflow", 18).splitlines() if not line.startswith("#")]
    name, value = line.split("=")
    assert "5 False None" == site.project.run("python", "-c", SAME, environ={name: value}).strip()


def test_containers_are_looked_at_with_three_commands() -> None:
    """Nothing runs them here; the example's own tests ask the processes the same."""
    assert 3 == code("aiflow", 20).count("docker-compose")


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
