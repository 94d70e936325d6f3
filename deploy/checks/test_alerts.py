"""A real Prometheus scrapes a real server under load; every panel has data, every alert fires."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from deploy.checks.stack import DEPLOY, Stack, running_stack, start_server
from flowledger.records import Actor, Call, Outcome, Usage
from tests.calls import a_call
from tests.needs import cannot_run, need_program

MINUTE = 60 * 10**9
FAILED = Outcome(success=False, error_type="Timeout")
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
SEVERITY = {
    rule["alert"]: rule["labels"]["severity"].upper()
    for group in RULES["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
IN_A_SHELL = {"$job": ".*", "$__rate_interval": "30s", "$__range": "60s"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    for tool in ("prometheus", "prometheus-alertmanager"):
        need_program(tool)
    with running_stack(tmp_path_factory.mktemp("stack")) as found:
        yield found


def ago(minutes: float, **fields: Any) -> Call:
    return a_call(start_ns=time.time_ns() - round(minutes * MINUTE), **fields)


def healthy(count: int) -> list[Call]:
    """Calls of several models, features and personas, one in a hundred of them failed."""
    return [
        ago(
            0.01,
            feature=("support", "search", "sales")[number % 3],
            model=("gpt-4o-mini", "gpt-4o", "claude-sonnet-4-5", "no-such-model")[number % 4],
            provider="anthropic" if number % 4 == 2 else "openai",
            actor=Actor(persona_id=("helper", "critic")[number % 2]),
            usage=Usage(input_tokens=100 + number, output_tokens=20),
            duration_ns=(50 + 37 * number % 900) * 10**6,
            outcome=FAILED if number % 100 == 99 else Outcome(),
        )
        for number in range(count)
    ]


def send(stack: Stack, calls: list[Call]) -> None:
    answer = stack.server.post_calls(calls, **stack.key)
    assert 200 == answer.status, answer.data


def under_load(stack: Stack, batches: int = 60) -> None:
    """Batches at once from several clients, until Prometheus has seen some of them come."""

    def one(_: int) -> None:
        send(stack, healthy(20))
        time.sleep(0.5)  # several scrapes fall into the load

    with ThreadPoolExecutor(4) as clients:
        list(clients.map(one, range(batches)))


def panels() -> list[Any]:
    return [
        pytest.param(query, target["instant"], id=f"{board['title']}: {panel['title']}")
        for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
        for board in [json.loads(path.read_text())]
        for panel in board["panels"]
        for target in panel["targets"]
        for query in [target["expr"]]
    ]


@pytest.fixture(scope="module")
def loaded(stack: Stack) -> Stack:
    stack.until("flowledger_store_up", lambda told: bool(told))  # before the first call
    under_load(stack)
    stack.until("flowledger:recent_calls", lambda told: len(told) >= 6)
    stack.until("flowledger:calls:rate5m", lambda told: bool(told))
    return stack


def test_nothing_is_told_under_load_that_is_well(loaded: Stack) -> None:
    assert [] == loaded.query('ALERTS{alertstate="firing"}')
    assert [] == loaded.slack.titles()


@pytest.mark.parametrize(("query", "instant"), panels())
def test_every_query_of_every_panel_has_data(loaded: Stack, query: str, instant: bool) -> None:
    for name, value in IN_A_SHELL.items():
        query = query.replace(name, value)
    found = loaded.query(query, 0 if instant else 60)
    values = [
        float(value)
        for line in found
        for _, value in ([line["value"]] if instant else line["values"])
    ]
    assert [] != [value for value in values if value == value], query  # NaN is not itself


def fires(stack: Stack, alert: str) -> dict[str, Any]:
    """Wait until Slack hears of an alert, in Slack's own format."""
    message = stack.slack.hears(f"{SEVERITY[alert]}: {alert}")
    [attachment] = message["attachments"]
    assert "#llm-alerts" == message["channel"]
    assert {"title", "title_link", "text", "fallback", "color", "mrkdwn_in"} <= attachment.keys()
    assert re.search(r"^\*.+\*\s", attachment["text"]), attachment["text"]
    print(f"\n{alert}: {attachment['text'].splitlines()[0]}")
    return message


def test_failures(loaded: Stack) -> None:
    send(loaded, [ago(0.1, feature="broken", outcome=FAILED) for _ in range(300)])
    fires(loaded, "FlowledgerErrorRate")
    message = fires(loaded, "FlowledgerFeatureErrorRate")
    assert "100% of the calls of broken fail" in message["attachments"][0]["text"]


def test_slow_calls(loaded: Stack) -> None:
    send(loaded, [ago(1, duration_ns=30 * 10**9) for _ in range(300)])
    fires(loaded, "FlowledgerLatency")


def test_spend_over_the_budget(loaded: Stack) -> None:
    send(loaded, [ago(1, cost_usd=60.0)])
    fires(loaded, "FlowledgerSpend")


def test_calls_that_come_late(loaded: Stack) -> None:
    send(loaded, [ago(60) for _ in range(400)])
    fires(loaded, "FlowledgerIngestLag")


def test_records_that_are_refused(loaded: Stack) -> None:
    answer = loaded.server.post_json([{"feature": 1}, {"feature": "x"}], **loaded.key)
    assert 1 == len(answer.json()["refused"])
    fires(loaded, "FlowledgerRecordsRejected")


def test_calls_that_no_journal_could_keep(loaded: Stack) -> None:
    program = (
        "import flowledger\n"
        "for _ in range(4000): flowledger.record(model='gpt-4o', prompt='x' * 9000, response='y')\n"
        "assert flowledger.flush(90)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=loaded.folder,
        env={
            **os.environ,
            "FLOWLEDGER_HOME": str(loaded.folder / "application"),
            "FLOWLEDGER_TRACKING_URI": loaded.server.url,
            "FLOWLEDGER_TOKEN": loaded.key["Authorization"].removeprefix("Bearer "),
            "FLOWLEDGER_JOURNAL_MAX_BYTES": str(1 << 20),
        },
    )
    fires(loaded, "FlowledgerRecordsDropped")


def test_a_feature_that_is_silent(loaded: Stack) -> None:
    send(loaded, [ago(120, feature="night")])
    message = fires(loaded, "FlowledgerProducerSilent")
    assert "No call of night for 2h" in message["attachments"][0]["text"]


def test_a_disk_that_is_nearly_full(loaded: Stack) -> None:
    disk = loaded.folder / "small"
    if not os.path.ismount(disk):
        cannot_run("a small disk to fill cannot be mounted by this user: run it as root")
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - (4 << 20)))
    fires(loaded, "FlowledgerDiskNearlyFull")
    filler.unlink()
    loaded.slack.hears("OVER: FlowledgerDiskNearlyFull")


def test_a_database_that_is_away_and_comes_back(loaded: Stack) -> None:
    loaded.postgres.stop()
    fires(loaded, "FlowledgerDatabaseDown")
    loaded.postgres.start()
    loaded.slack.hears("OVER: FlowledgerDatabaseDown")


def test_a_server_that_is_gone_and_comes_back(loaded: Stack) -> None:
    loaded.stop("server")
    fires(loaded, "FlowledgerDown")
    start_server(loaded)
    loaded.slack.hears("OVER: FlowledgerDown")


def test_every_alert_was_made_to_fire(loaded: Stack) -> None:
    heard = {title.partition(": ")[2] for title in loaded.slack.titles()}
    assert set(SEVERITY) == heard
