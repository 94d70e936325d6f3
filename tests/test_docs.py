"""The words are true: every command and every block of code in README and docs is run."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import msgspec
import pytest
import sqlalchemy as sa
import yaml
from fastapi import FastAPI

from flowledger.cli import COMMANDS
from flowledger.config import Settings, load
from flowledger.server.analytics import analytics_router
from flowledger.server.settings import ServerSettings
from flowledger.testing.llm import StubLLM
from tests.deploy.chart import CHART, rendered
from tests.servers import answers_at, free_port

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BIN = Path(sys.executable).parent

_block = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """Every block of a language, with the name of its page."""
    return [
        (page.name, code)
        for page in PAGES
        for found, code in _block.findall(page.read_text())
        if found == language
    ]


def commands() -> list[str]:
    """Every command of every shell block."""
    lines = (line for _, code in blocks("bash") for line in code.splitlines())
    return sorted({line for line in lines if line and not line.startswith("#")})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where the README's ten lines have run, so that there is something to look at."""
    folder = tmp_path_factory.mktemp("reader")
    with StubLLM() as stub:
        os.environ["DOCS_STUB_URL"] = stub.url
        run_python(blocks("python")[0][1] + "\nassert flowledger.flush(90)", folder)
        yield folder


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[None]:
    """The server that the demo leaves running."""
    port = free_port()
    with subprocess.Popen(
        ["flowledger", "demo", "--calls", "120", "--stub", "--port", str(port)],
        cwd=place,
        env=environment(place),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.environ["DOCS_SERVER_URL"] = f"http://127.0.0.1:{port}"
        answers_at(f"http://127.0.0.1:{port}/health", process)
        yield
        process.terminate()


def environment(folder: Path) -> dict[str, str]:
    """A reader's own: nothing but the path, a home, and where the stand-in for OpenAI is."""
    return {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": os.environ["DOCS_STUB_URL"],
        "ANTHROPIC_API_KEY": "none",
        "ANTHROPIC_BASE_URL": os.environ["DOCS_STUB_URL"].removesuffix("/v1"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=180
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def run_python(code: str, folder: Path) -> str:
    return run([sys.executable, "-c", code], folder)


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_every_python_block_runs_as_printed(place: Path, page: str, code: str) -> None:
    run_python(code, place)


@pytest.mark.parametrize(("page", "query"), blocks("sql"))
def test_every_sql_block_runs_as_printed(place: Path, page: str, query: str) -> None:
    engine = sa.create_engine(f"sqlite:///{place / 'mlflow.db'}")
    with engine.connect() as connection:
        assert [] != connection.exec_driver_sql(query).all()
    engine.dispose()


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_every_yaml_block_is_a_file_of_settings(tmp_path: Path, page: str, text: str) -> None:
    path = tmp_path / "flowledger.yaml"
    path.write_text(text)
    assert load({"FLOWLEDGER_CONFIG": str(path)}).enabled


def runs(command: str, place: Path) -> None:
    """The command does what it says where the README's ten lines have run."""
    run(shlex.split(command), place)


def serves(command: str, place: Path) -> None:
    """A server answers on its port."""
    port = free_port()
    with subprocess.Popen(
        [*shlex.split(command), "--port", str(port)],
        cwd=place,
        env=environment(place),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            answers_at(f"http://127.0.0.1:{port}/health", process)
        finally:
            process.terminate()


def is_a_target(command: str, place: Path) -> None:
    """The Makefile has the target; what `make test` runs is this very run."""
    target = shlex.split(command)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def is_an_extra(command: str, place: Path) -> None:
    """What `pip install` is told to take is there; installing is what `make install` does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [name] = re.findall(r"flowledger(?:\[([\w,]+)\])?", command)
    assert set(filter(None, name.split(","))) <= set(project["optional-dependencies"])


def asks(command: str, place: Path) -> None:
    """A server over the demo's calls gives an answer of the kind that is printed below."""
    words = shlex.split(command)
    [address] = [word for word in words if word.startswith("http")]
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    url = address.replace("http://localhost:5000", os.environ["DOCS_SERVER_URL"])
    asked = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        told = json.load(answer)
    [shown] = [code for asking, code in ANSWERS if asking.strip() == command]
    assert_alike(told, json.loads(shown), command)


def renders(command: str, place: Path) -> None:
    """Helm's own engine makes manifests of what `helm upgrade` is given."""
    words = shlex.split(command)
    assert ["helm", "upgrade", "--install"] == words[:3]
    assert CHART == ROOT / words[4]
    files = [ROOT / words[at + 1] for at, word in enumerate(words) if word == "--values"]
    values = yaml.safe_load(files[0].read_text()) if files else {}
    assert "Deployment" in {manifest["kind"] for manifest in rendered(values)}


def names_what_is_there(command: str, place: Path) -> None:
    """What `kubectl` is told to make or to look at is what the chart refers to or makes."""
    words = shlex.split(command)
    made = rendered({}, release="mlflow")
    if "secret" in words:
        name, keys = words[words.index("generic") + 1], [w[12:] for w in words if "-file" in w]
        assert {f"name: {name}\nkey: {key}" for key in keys} == references(made, name)
    for word in words:
        kind, slash, name = word.partition("/")
        if slash and "/" not in name and kind in KINDS:
            assert (KINDS[kind], name) in {(m["kind"], m["metadata"]["name"]) for m in made}
    if "-f" in words:
        manifest = yaml.safe_load((ROOT / words[words.index("-f") + 1]).read_text())
        kubernetes_validate.validate(manifest, "1.34", strict=True)


KINDS = {"svc": "Service", "deploy": "Deployment"}


def references(manifests: list[dict[str, Any]], secret: str) -> set[str]:
    """Which keys of a Secret the manifests read."""
    text = "\n".join(line.strip() for line in yaml.safe_dump_all(manifests).splitlines())
    pairs = re.findall(r"^key: (.*)\nname: (.*)$", text, re.MULTILINE)
    return {f"name: {name}\nkey: {key}" for key, name in pairs if name == secret}


def has_its_file(command: str, place: Path) -> None:
    """What a container engine, a shell or Prometheus' tools are given is there to be read.

    Images cannot be built in a test; `tests/deploy` reads and runs these files otherwise.
    """
    words = shlex.split(command)
    files = [word for word in words if word.startswith("deploy/")]
    assert files
    assert [] == [name for name in files if not (ROOT / name).is_file()]
    if "compose" in words:
        services = yaml.safe_load((ROOT / files[0]).read_text())["services"]
        told = words[words.index(files[0]) + 1 :]
        assert told[0] in ("up", "logs", "exec")
        assert told[0] == "up" or told[1] in services


ANSWERS = [
    answered
    for page in PAGES
    for answered in re.findall(
        r"^```bash\n(curl [^\n]+)\n```\n```json\n(.*?)^```$", page.read_text(), re.M | re.S
    )
]


def assert_alike(told: Any, shown: Any, where: str) -> None:
    """The same keys with the same kinds of values; numbers by name are of any name."""
    if isinstance(shown, dict) and not all(type(value) is int for value in shown.values()):
        assert shown.keys() == told.keys(), where
        for key in shown:
            assert_alike(told[key], shown[key], f"{where} {key}")
    elif isinstance(shown, list):
        assert_alike(told[0], shown[0], where)
    elif shown is not None and told is not None:
        assert isinstance(told, type(shown)), where


WAYS: dict[str, Callable[[str, Path], None]] = {
    "make": is_a_target,
    "pip": is_an_extra,
    "mlflow": serves,
    "flowledger": runs,
    "curl": asks,
    "helm": renders,
    "kubectl": names_what_is_there,
    "docker": has_its_file,
    "podman": has_its_file,
    "sh": has_its_file,
    "promtool": has_its_file,
    "amtool": has_its_file,
}


@pytest.mark.parametrize("command", commands())
def test_every_command_works_as_printed(
    place: Path, command: str, request: pytest.FixtureRequest
) -> None:
    if command.startswith("curl"):
        request.getfixturevalue("served")
    WAYS[command.split()[0]](command, place)


def test_every_route_that_answers_questions_is_shown_with_an_answer() -> None:
    shown = {re.sub(r"^.*?http://localhost:5000|[?\"].*$", "", line) for line, _ in ANSWERS}
    app = FastAPI()
    app.include_router(analytics_router("sqlite:///mlflow.db"))
    paths = {path for path in app.openapi()["paths"] if "/mlflow/" in path}
    assert {"/api/analytics/mlflow/report"} == paths - shown


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs/settings.md").read_text()
    assert [] == [name for name in Settings.__struct_fields__ if f"| `{name}` |" not in text]


def test_every_setting_of_the_server_is_documented_with_its_default() -> None:
    text = (ROOT / "docs/settings.md").read_text()
    defaults = msgspec.structs.asdict(ServerSettings())
    rows = [f"| `{name}` | {value} |".replace("|  |", "| |") for name, value in defaults.items()]
    assert [] == [row for row in rows if row not in text]


def test_every_command_is_named_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert [] == [name for name in COMMANDS if name not in text]


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[\[<>=; ]", line)[0] for group in groups for line in group}
    text = (ROOT / "docs/dependencies.md").read_text()
    assert set() == {name for name in names - {"flowledger"} if f"`{name}" not in text}


def test_every_link_leads_somewhere() -> None:
    links = [
        (page, link)
        for page in PAGES
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
    ]
    assert [] == [(page.name, link) for page, link in links if not (page.parent / link).exists()]


def test_no_address_of_an_index_and_no_path_of_a_machine_is_in_the_repository() -> None:
    tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    odd = re.compile(r"files\.pythonhosted|--index-url|/root/|(?<![\w}])/home/\w+/")
    texts = ((name, ROOT / name) for name in tracked if name and name != "tests/test_docs.py")
    found = [
        name
        for name, path in texts
        if path.is_file() and odd.search(path.read_text("utf-8", "replace"))
    ]
    assert [] == found
