"""Rules, alerts and dashboards: Prometheus' own tools accept them, and they read what is told."""

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deploy.grafana import dashboards
from flowledger.questions.rows import Percentiles
from flowledger.server.metrics import Metrics
from flowledger.server.standing import Disks, Standing, StoreUp
from tests.needs import need_program

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
_metric = re.compile(r"\b(?:flowledger|mlflow)[:_][a-z0-9_:]+")


def tool(*command: str) -> str:
    """What one of Prometheus' tools says."""
    need_program(command[0], "prometheus prometheus-alertmanager")
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules(file: str = "rules.yml") -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_prometheus_takes_the_rules() -> None:
    told = tool("promtool", "check", "rules", "--lint-fatal", "limits.yml", "rules.yml")
    found = [int(number) for number in re.findall(r"(\d+) rules found", told)]
    assert [len(rules("limits.yml")), len(rules())] == found


def test_each_alert_fires_above_its_limit_and_is_silent_below_it() -> None:
    assert "SUCCESS" in tool("promtool", "test", "rules", "rules_test.yml")


def test_each_alert_has_such_a_test() -> None:
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    fired = {
        one["alertname"]
        for test in tests
        for one in test.get("alert_rule_test", ())
        if one["exp_alerts"]
    }
    assert {rule["alert"] for rule in rules() if "alert" in rule} == fired


def test_prometheus_and_alertmanager_take_their_configuration() -> None:
    tool("promtool", "check", "config", "--syntax-only", "prometheus.yml")
    tool("amtool", "check-config", "alertmanager.yml")


def test_each_alert_is_explained_to_whoever_is_called_by_it() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    alerts = [rule["alert"] for rule in rules() if "alert" in rule]
    assert [] == [alert for alert in alerts if f"| `{alert}` |" not in page]


def test_the_dashboards_are_what_the_code_makes() -> None:
    written = {path: path.read_text() for path in dashboards.FOLDER.glob("*.json")}
    assert dict(dashboards.files()) == written, "run python -m deploy.grafana.dashboards"


def test_the_dashboards_are_those_that_were_asked_for() -> None:
    titles = [json.loads(text)["title"] for _, text in dashboards.files()]
    assert [
        "flowledger: Tokens by persona",
        "flowledger: API latency trends",
        "flowledger: Cost per persona",
        "flowledger: Model comparison",
        "flowledger: Service health",
    ] == titles


@cache
def told_names() -> frozenset[str]:
    """Every name in `/metrics`."""
    empty: dict[str, Any] = {"recent": {}, "hour": {}, "day": {}, "latency": Percentiles()}
    standing = Standing(
        counts={"active_runs": 0, "experiments": 0}, dropped=0, database_bytes=0, **empty
    )
    others = [StoreUp(True), Disks({"here": ROOT}), standing]
    families = [family for other in others for family in other.collect()]
    counted = [
        family
        for metric in vars(Metrics(1)).values()
        if hasattr(metric, "describe")
        for family in metric.describe()
    ]
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return frozenset(
        family.name + ending for family in [*families, *counted] for ending in endings[family.type]
    )


def test_every_query_reads_what_is_told_or_recorded() -> None:
    recorded = {rule["record"] for rule in [*rules(), *rules("limits.yml")] if "record" in rule}
    queries = [rule["expr"] for rule in rules()]
    for _, text in dashboards.files():
        panels = json.loads(text)["panels"]
        queries += [target["expr"] for panel in panels for target in panel["targets"]]
    read = {name for query in queries for name in _metric.findall(query)}
    assert set() == read - told_names() - recorded


def test_every_number_that_is_told_is_documented() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told_names()}
    assert set() == {name for name in plain if f"`{name}" not in page}
