"""The Prometheus Operator takes its manifests: checked by its own types' schemas, from npm."""

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.chart import CONFIGURATIONS, rendered
from tests.needs import need_program

KINDS = ("ServiceMonitor", "PrometheusRule")
PACKAGE = "@kubernetes-models/prometheus-operator@6.0.0"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed."""
    need_program("npm")
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    shutil.copy(Path(__file__).with_name("operator.mjs"), folder)
    return folder


def checked(node: Path, manifests: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    lines = "".join(json.dumps(manifest) + "\n" for manifest in manifests)
    return subprocess.run(
        ["node", "operator.mjs"], cwd=node, input=lines, capture_output=True, text=True
    )


def of_operator(name: str) -> list[dict[str, Any]]:
    return [one for one in rendered(CONFIGURATIONS[name]) if one["kind"] in KINDS]


@pytest.mark.parametrize(("name", "count"), [("postgres-s3", 2), ("basic-auth", 1)])
def test_the_operator_takes_its_manifests(node: Path, name: str, count: int) -> None:
    done = checked(node, of_operator(name))
    assert (0, count) == (done.returncode, len(done.stdout.splitlines())), done.stderr


def test_it_would_not_take_a_wrong_one(node: Path) -> None:
    monitor = copy.deepcopy(of_operator("basic-auth")[0])
    del monitor["spec"]["selector"]
    done = checked(node, [monitor])
    assert 0 != done.returncode
    assert "selector" in done.stderr
