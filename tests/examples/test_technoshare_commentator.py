"""examples/technoshare_commentator: its pipeline, against a real server and real pages."""

import importlib
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_dict
from mlflow.entities import Run

from flowledger.testing.llm import StubLLM
from tests.examples.projects import Project, eventually, stub_settings
from tests.servers import free_port

SOURCE = Project.folder("technoshare_commentator") / "src"
MODULE = "src.technoshare_commentator"
WORKER = ("python", "-m", f"{MODULE}.main_worker")
ARXIV = "https://arxiv.org/pdf/2401.00001"
GITHUB = "https://github.com/technoshare/ledger"
ARTICLE = "https://example.org/article"
EMPTY = "https://example.org/empty"
LINKS = (ARXIV, GITHUB, ARTICLE, EMPTY)
SETTINGS = {
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
    "MLFLOW_EXPERIMENT_NAME": "technoshare_commentator",
    "MLFLOW_ENABLE_TRACKING": "true",
    "MLFLOW_ENABLE_TRACING": "true",
}
START_SERVER = "nohup ./scripts/start_mlflow.sh >> mlflow.log 2>&1 &"
# Which links' runs each of these searches finds.
FILTERS = {
    "tags.outcome = 'success'": {ARXIV, GITHUB, ARTICLE},
    "tags.outcome = 'gate_failed'": {EMPTY},
    "tags.domain = 'arxiv.org'": {ARXIV},
    "tags.adapter_name = 'ArxivAdapter'": {ARXIV},
}
STAGES = {"retrieval", "analysis", "quality_gates", "slack_post"}
SPANS = {
    "retrieval.fetch_evidence",
    "analysis.run",
    "quality_gates.validate",
    "slack.post_message",
}
ARTIFACTS = {"evidence.json", "analysis_result.json", "slack_payload.json"}


class Place(NamedTuple):
    """The pipeline's surroundings: MLflow's server, the offline web, and where its files are."""

    project: Project
    folder: Path
    url: str
    posted: list[dict[str, Any]]

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client."""
        return MlflowClient(self.url)

    def runs(self, filter_string: str = "") -> list[Run]:
        """What MLflow's own search finds in the pipeline's experiment."""
        found = self.client.get_experiment_by_name("technoshare_commentator")
        ids = [found.experiment_id] if found else []
        return list(self.client.search_runs(ids, filter_string)) if ids else []

    def submit(self, *links: str, **environ: str) -> list[str]:
        """Put links into the queue; the ids of their jobs."""
        told = self.project.run("python", "-m", f"{MODULE}.submit", *links, environ=environ)
        return [line.split()[0] for line in told.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, empty_sqlite: Path) -> Iterator[Place]:
    """The pipeline's surroundings, with the settings of its `.env`."""
    folder = tmp_path_factory.mktemp("technoshare")
    with surroundings(folder, empty_sqlite, SETTINGS, START_SERVER) as place:
        yield place


@contextmanager
def surroundings(
    folder: Path, empty_sqlite: Path, settings: dict[str, str], start: str
) -> Iterator[Place]:
    """MLflow's server, and a stub for each other party.

    Args:
        folder: where the server and the pipeline keep their files.
        empty_sqlite: a database to copy.
        settings: the environment, but for addresses.
        start: a line of shell that leaves the server running.
    """
    shutil.copy(empty_sqlite, folder / "mlflow.db")  # making its tables takes MLflow long
    with ExitStack() as stack:
        stub = stack.enter_context(StubLLM())
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(SOURCE)
            stubs = importlib.import_module("technoshare_commentator.offline.servers")
        addresses, posted = stack.enter_context(stubs.offline())
        port = str(free_port())
        url = f"http://127.0.0.1:{port}"
        environ = {**settings, **addresses, **stub_settings(stub)}
        environ |= {"MLFLOW_TRACKING_URI": url, "MLFLOW_PORT": port}
        project = Project("technoshare_commentator", folder, environ)
        (folder / "scripts").symlink_to(project.path / "scripts")
        pid = int(shell(f"{start}\necho $!", folder, project.environ))
        stack.callback(os.kill, pid, signal.SIGTERM)
        health = f"curl {url}/health || true"
        eventually(lambda: shell(health, folder, project.environ) == "OK", 180)
        assert str(pid) in shell('pgrep -f "mlflow server"', folder, project.environ).split()
        yield Place(project, folder, url, posted)


@pytest.fixture(scope="module")
def worked(place: Place) -> Place:
    """Four links, commented on by the worker."""
    comment_on_links(place, " ".join(WORKER))
    return place


def comment_on_links(place: Place, command: str) -> None:
    """Put the links into the queue, and let the worker that a command starts comment on them."""
    place.submit(*LINKS)
    worker = place.project.start(*command.split())
    try:
        eventually(lambda: len(ended(place)) == len(LINKS))
    finally:
        worker.terminate()
    assert 0 == worker.wait()


def ended(place: Place) -> list[Run]:
    """Jobs' runs that are over."""
    return [run for run in place.runs("tags.outcome != 'x'") if run.info.status == "FINISHED"]


def variables(block: str) -> dict[str, str]:
    """The variables that a block of shell sets."""
    return dict(re.findall(r"^(?:export )?(\w+)=(.+)$", block, re.MULTILINE))


def job_of(place: Place, link: str) -> Run:
    """The run of the job about a link."""
    [run] = [run for run in place.runs() if run.data.tags.get("target_url") == link]
    return run


def test_the_file_env_holds_the_settings() -> None:
    text = (Project.folder("technoshare_commentator") / ".env").read_text()
    assert SETTINGS == variables(text)


@pytest.mark.parametrize(("filter_string", "links"), FILTERS.items())
def test_runs_are_found_by_outcome_domain_and_adapter(
    worked: Place, filter_string: str, links: set[str]
) -> None:
    assert links == {run.data.tags["target_url"] for run in worked.runs(filter_string)}


def test_a_jobs_run_has_its_tags_params_and_artifacts(worked: Place) -> None:
    run = job_of(worked, ARXIV)
    tags = {"job_id", "channel_id", "message_ts", "target_url", "outcome", "domain", "adapter_name"}
    assert tags <= run.data.tags.keys()
    assert ("gpt-4o-mini", "0.2") == (run.data.params["model"], run.data.params["temperature"])
    assert f"job_{run.data.tags['job_id']}" == run.info.run_name
    kept = {file.path for file in worked.client.list_artifacts(run.info.run_id)}
    assert ARTIFACTS == kept
    os.environ["MLFLOW_TRACKING_URI"] = worked.url
    try:
        payload = load_dict(f"{run.info.artifact_uri}/slack_payload.json")
        evidence = load_dict(f"{run.info.artifact_uri}/evidence.json")
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
    assert "Journals before Databases" == evidence["title"]
    assert payload in worked.posted


def test_each_stage_is_a_nested_run_with_its_numbers(worked: Place) -> None:
    job = job_of(worked, GITHUB).info.run_id
    nested = worked.runs(f"tags.mlflow.parentRunId = '{job}'")
    stages = {run.info.run_name: run.data for run in nested}
    assert STAGES == stages.keys()
    assert all(stage.metrics["latency_seconds"] >= 0 for stage in stages.values())
    assert ("GithubAdapter", 2, 4) == (
        stages["retrieval"].params["adapter"],
        stages["retrieval"].metrics["tool_call_count"],
        stages["retrieval"].metrics["snippet_count"],
    )
    assert 0 == stages["quality_gates"].metrics["gate_failures"]
    assert "tldr" in stages["analysis"].params["output_structure"]


def test_what_fails_a_gate_is_not_posted_and_says_why(worked: Place) -> None:
    job = job_of(worked, EMPTY).info.run_id
    nested = worked.runs(f"tags.mlflow.parentRunId = '{job}'")
    stages = {run.info.run_name: run.data for run in nested}
    assert STAGES - {"slack_post"} == stages.keys()
    assert 1 == stages["quality_gates"].metrics["gate_failures"]
    assert 3 == len(worked.posted)


def test_the_trace_of_a_job_shows_its_spans_and_one_call_of_a_model(worked: Place) -> None:
    trace = worked.client.get_trace(f"tr-{job_of(worked, ARTICLE).info.run_id}")
    spans = {span.name: span for span in trace.data.spans}
    assert SPANS <= spans.keys()
    assert "LLM" == spans["analysis.run"].span_type
    assert 1 == sum(span.span_type == "CHAT_MODEL" for span in trace.data.spans)
    fetched = spans["retrieval.fetch_evidence"].attributes
    assert ("WebAdapter", 1.0) == (fetched["adapter"], fetched["coverage"])


def test_slack_gets_its_comment_in_the_thread_of_the_link(worked: Place) -> None:
    [message] = [one for one in worked.posted if "Queues" in str(one)]
    tags = job_of(worked, ARTICLE).data.tags
    assert (tags["channel_id"], tags["message_ts"]) == (message["channel"], message["thread_ts"])


def test_a_link_told_of_twice_is_one_job(worked: Place) -> None:
    told = (*LINKS[:1], "--ts", job_of(worked, ARXIV).data.tags["message_ts"])
    assert [job_of(worked, ARXIV).data.tags["job_id"]] == worked.submit(*told)


def test_the_job_of_a_killed_worker_is_taken_again(place: Place, tmp_path: Path) -> None:
    with StubLLM(latency_ms=60_000) as slow:
        own = {"TECHNOSHARE_JOBS": str(tmp_path), "TECHNOSHARE_MODEL": "gpt-4o"}
        [job] = place.submit(GITHUB, **own)
        killed = place.project.start(*WORKER, environ={**own, "OPENAI_BASE_URL": slow.url})
        eventually(lambda: len(slow.requests) == 1)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    place.project.run(*WORKER, "--until-empty", environ=own)

    def attempts() -> dict[str, str]:
        runs = place.runs(f"tags.job_id = '{job}'")
        return {run.data.tags["attempt"]: run.info.status for run in runs}

    ended = {"1": "KILLED", "2": "FINISHED"}
    assert ended == eventually(lambda: told if (told := attempts()) == ended else None)


def test_a_page_that_cannot_be_had_is_tried_again_and_its_run_says_error(
    place: Place, tmp_path: Path
) -> None:
    own = {"TECHNOSHARE_JOBS": str(tmp_path)}
    [job] = place.submit("https://example.org/missing", **own)
    place.project.run(*WORKER, "--until-empty", environ=own)
    [run] = eventually(
        lambda: place.runs(f"tags.job_id = '{job}' and attributes.status = 'FAILED'")
    )
    assert ("error", "RetrievalError") == (run.data.tags["outcome"], run.data.tags["error_type"])
    assert "waiting" in place.project.run("python", "-c", STATES, environ=own)


STATES = f"""
from {MODULE}.config import Settings
from {MODULE}.jobs import Queue
print(Queue(Settings.read().jobs).states())
"""


def test_an_address_inside_of_the_network_is_never_read(place: Place) -> None:
    told = place.project.run("python", "-c", INSIDE, environ={"TECHNOSHARE_FETCH_THROUGH": ""})
    assert 3 == told.count("refused")


INSIDE = f"""
from {MODULE}.retrieval import RetrievalError, retrieve
for url in ("http://127.0.0.1:5000/", "http://169.254.169.254/latest", "file:///etc/passwd"):
    try:
        retrieve(url)
    except RetrievalError as error:
        print("refused:", error)
"""


@pytest.mark.parametrize("switch", ["MLFLOW_ENABLE_TRACKING", "MLFLOW_ENABLE_TRACING"])
def test_switched_off_the_pipeline_works_and_nothing_reaches_mlflow(
    place: Place, tmp_path: Path, switch: str
) -> None:
    comment_switched_off(place, tmp_path, switch, "false")


def comment_switched_off(place: Place, folder: Path, switch: str, value: str) -> None:
    """Let the worker comment on a link with a variable set; nothing of it reaches MLflow."""
    posted = len(place.posted)
    own = {"TECHNOSHARE_JOBS": str(folder), "TECHNOSHARE_MODEL": "gpt-4.1"}
    own |= {switch: value, "FLOWLEDGER_HOME": str(folder / "off")}
    place.submit(ARXIV, **own)
    place.project.run(*WORKER, "--until-empty", environ=own)
    assert posted + 1 == len(place.posted)
    assert [] == list((folder / "off").rglob("*.journal"))
    assert [] == place.runs("params.model = 'gpt-4.1'")


def test_with_mlflow_unreachable_the_pipeline_starts_at_once_and_works(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    posted = len(place.posted)
    own = {"TECHNOSHARE_JOBS": str(tmp_path), "FLOWLEDGER_HOME": str(tmp_path / "away")}
    own["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{free_port()}"
    place.submit(ARXIV, **own)
    place.project.run(*WORKER, "--until-empty", environ={**own, "FLOWLEDGER_EXIT_TIMEOUT": "0.1"})
    assert posted + 1 == len(place.posted)
    assert 1 == len(list((tmp_path / "away").rglob("*.journal")))
    took = place.project.run("python", "-c", START, environ=own)
    with capsys.disabled():
        print(f"\ntechnoshare with MLflow unreachable: {float(took):.0f} ms for its first run")


START = f"""
import time
started = time.perf_counter()
from {MODULE}.mlops.tracking import MLflowTracker
with MLflowTracker().start_job_run("x"):
    pass
print(1000 * (time.perf_counter() - started))
"""


def test_the_script_leaves_a_server_running_in_its_folder(place: Place) -> None:
    assert {"mlflow.db", "mlflow.log"} <= {path.name for path in place.folder.iterdir()}
    assert b"MLflow" in urllib.request.urlopen(place.url).read()


def test_old_runs_that_were_deleted_are_cleaned_by_mlflows_own_command(worked: Place) -> None:
    clean_deleted_run(worked, "mlflow gc --backend-store-uri sqlite:///mlflow.db")


def clean_deleted_run(worked: Place, clean: str) -> None:
    """Delete a run, and see it gone after a line of shell."""
    old = job_of(worked, EMPTY).info.run_id
    worked.client.delete_run(old)
    environ = {**worked.project.environ, "MLFLOW_TRACKING_URI": worked.url}
    shell(clean, worked.folder, environ)
    assert [] == [run for run in worked.runs() if run.info.run_id == old]
    with pytest.raises(Exception, match="not found"):
        worked.client.get_run(old)


def test_nothing_is_written_beside_the_code(worked: Place) -> None:
    assert [] == worked.project.added()


def shell(command: str, folder: Path, environ: dict[str, str]) -> str:
    """What a line of shell prints."""
    with (folder / "shell.log").open("a+") as log:  # what stays behind may hold it open
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            timeout=120,
        )
    assert 0 == done.returncode, done.stdout + (folder / "shell.log").read_text()
    return done.stdout
