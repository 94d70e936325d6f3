"""The compose file and the image: secrets come from files, and what starts is locked down."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.needs import need_program

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
OURS = ("server", "setup", "keys", "aiflow")
PARTS = {"database", "objects", "prometheus", "alertmanager", "grafana", *OURS}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What secrets.sh makes, run twice."""
    folder = tmp_path_factory.mktemp("compose")
    shutil.copy(DEPLOY / "compose" / "secrets.sh", folder)
    for _ in range(2):
        subprocess.run(["sh", str(folder / "secrets.sh")], check=True, capture_output=True)
    return folder / "secrets"


def test_docker_compose_takes_it(tmp_path: Path, secrets: Path) -> None:
    need_program("docker-compose")
    command = ["docker-compose", "--file", str(COMPOSE), "config"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (0, "") == (done.returncode, done.stderr)
    told = yaml.safe_load(done.stdout)
    assert told["services"].keys() == PARTS


def test_every_secret_is_a_file_that_the_script_makes(secrets: Path) -> None:
    named = {name: entry["file"] for name, entry in compose()["secrets"].items()}
    assert {name: f"secrets/{name}" for name in named} == named
    assert set(named) == {path.name for path in secrets.iterdir()}


def test_a_secret_is_made_once_and_no_two_are_the_same(secrets: Path) -> None:
    texts = {path.name: path.read_text() for path in secrets.iterdir()}
    assert len(texts) == len(set(texts.values()))
    password = texts["database_password"]
    assert (48, f"postgresql://flowledger:{password}@database:5432/flowledger") == (
        len(password),
        texts["database_uri"],
    )
    assert 0o40700 == secrets.stat().st_mode


def test_no_secret_is_in_the_environment_of_a_service() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|STORE_URI")
    for name, service in compose()["services"].items():
        plain = [
            variable
            for variable in service.get("environment", {})
            if secret.search(variable) and not variable.endswith("_FILE")
        ]
        assert [] == plain, name


@pytest.mark.parametrize("name", [*OURS, "prometheus", "alertmanager", "grafana"])
def test_a_service_is_locked_down(name: str) -> None:
    service = compose()["services"][name]
    assert (True, ["ALL"], ["no-new-privileges:true"]) == (
        service["read_only"],
        service["cap_drop"],
        service["security_opt"],
    )


def test_nothing_is_reached_from_outside_of_the_machine() -> None:
    ports = [port for one in compose()["services"].values() for port in one.get("ports", ())]
    assert 5 == len(ports)
    assert [] == [port for port in ports if not port.startswith("127.0.0.1:")]
    assert compose()["networks"]["data"]["internal"]


def test_every_file_that_a_container_is_given_is_there() -> None:
    volumes = [v for one in compose()["services"].values() for v in one.get("volumes", ())]
    paths = [COMPOSE.parent / volume.split(":")[0] for volume in volumes if volume.startswith(".")]
    missing = [path.name for path in paths if not path.exists()]
    assert [] == [name for name in missing if name != "aiflow"]


def entrypoint(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DEPLOY / "image" / "entrypoint"), *command],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
    )


def test_the_entrypoint_gives_a_process_what_is_in_the_files(tmp_path: Path) -> None:
    odd = tmp_path / "uri"
    odd.write_text("postgresql://a:p%40 $x'\"`id`@db/name\n")
    done = entrypoint(
        *("sh", "-c", 'printf "%s" "$MLFLOW_BACKEND_STORE_URI"; env | grep _FILE='),
        MLFLOW_BACKEND_STORE_URI_FILE=str(odd),
        AWS_SHARED_CREDENTIALS_FILE="/of/amazons/own",
    )
    assert odd.read_text().strip() + "AWS_SHARED_CREDENTIALS_FILE=/of/amazons/own\n" == done.stdout


def test_the_entrypoint_names_a_file_that_cannot_be_read() -> None:
    done = entrypoint("true", FLOWLEDGER_TOKEN_FILE="/nowhere/key")
    assert 2 == done.returncode
    assert "FLOWLEDGER_TOKEN_FILE names /nowhere/key" in done.stderr


def test_the_image_is_of_two_stages_and_runs_as_nobody_in_particular() -> None:
    assert 2 == len(re.findall(r"^FROM ", CONTAINERFILE, re.MULTILINE))
    [user] = re.findall(r"^USER (.*)$", CONTAINERFILE, re.MULTILINE)
    assert "10001:10001" == user
    assert re.search(r"^HEALTHCHECK ", CONTAINERFILE, re.MULTILINE)
    assert not re.search(r"PASSWORD|SECRET|TOKEN", CONTAINERFILE)


def test_every_requirement_of_the_image_is_locked_by_hash() -> None:
    for name in ("server", "examples"):
        lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
        pins = [place for place, line in enumerate(lines) if re.match(r"^[a-z].*==", line)]
        assert [] == [lines[place] for place in pins if "--hash=" not in lines[place + 1]]
