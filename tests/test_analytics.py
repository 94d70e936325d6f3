"""The analytics API answers over all calls, the same from a server and from any FastAPI app."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from flowledger.config import Destination
from flowledger.records import Actor, Call, Outcome, Prompt, Usage, encode, new_id
from flowledger.server.analytics import analytics_router
from flowledger.store import open_sink
from tests.calls import a_call
from tests.conftest import postgres_database
from tests.server_client import rows, running

ANALYTICS, TRACKING = "/api/analytics/mlflow", "/api/v1/mlflow/tracking"
NOW_NS = time.time_ns()
DAY_NS = 86_400 * 10**9

TEXT_FILTERS = (
    *("persona_id", "provider", "model", "prompt_version"),
    *("user_id", "session_id", "kind", "tag"),
)

Get = Callable[..., tuple[int, Any]]


def a_run(days_ago: float, **fields: Any) -> Call:
    usual: dict[str, Any] = {
        "id": new_id(),
        "start_ns": NOW_NS - round(days_ago * DAY_NS),
        "duration_ns": 2 * 10**9,
        "feature": "pid_verification",
        "experiment": "P&ID Design Verification",
        "model": "gpt-4o",
        "actor": Actor(user_id="ana", session_id="s-1", user_role="admin"),
        "usage": Usage(input_tokens=100, output_tokens=50),
        "prompt_version": Prompt(version="v1"),
        "cost_usd": 0.5,
        "metrics": {"confidence_score": 0.8, "template_match_rate": 1.0},
        "tags": {
            "detected_intent": "create_workflow",
            "current_module": "editor",
            "current_tab": "main",
            "dspy_version": "3.4.1",
        },
    }
    return a_call(**usual | fields)


FAILED = a_run(
    0.2,
    outcome=Outcome(success=False, error_type="RateLimitError", message="slow down"),
    metrics={},
    cost_usd=None,
    model="house-7b",
    model_asked=None,
    duration_ns=4 * 10**9,
)
CALLS = [
    a_run(0.1),
    a_run(0.3, metrics={"confidence_score": 0.6, "template_match_rate": 0.0}),
    FAILED,
    a_run(2.5, prompt_version=Prompt(version="v2"), tags={"detected_intent": "chat"}),
    a_run(9, feature="pfd_conversion", experiment="PFD to P&ID Conversion"),
    a_run(0.1, inner_calls=2),
]


@pytest.fixture(scope="module", params=["server-sqlite", "server-postgresql", "app-sqlite"])
def get(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Get]:
    """Asks a server or an app of one's own, over a ledger of these calls."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param.endswith("sqlite"):
        shutil.copy(request.getfixturevalue("empty_sqlite"), folder / "mlflow.db")
        yield from asking(request.param, f"sqlite:///{folder / 'mlflow.db'}", folder)
    else:
        with postgres_database(request.getfixturevalue("postgres_server")) as uri:
            yield from asking(request.param, uri, folder)


def asking(way: str, uri: str, folder: Path) -> Iterator[Get]:
    place = Destination(tracking_uri=uri, artifact_root=str(folder), store_as="run+trace")
    sink = open_sink(place)
    assert [] == sink.write([encode(call) for call in CALLS])
    sink.close()
    if way.startswith("app"):
        app = FastAPI()
        app.include_router(analytics_router(uri))
        with TestClient(app) as client:
            yield lambda path, method="GET", **query: answer_of(
                client.request(method, f"{path}?{urlencode(query)}")
            )
    else:
        with running(uri, folder, workers=1) as server:

            def ask(path: str, method: str = "GET", **query: Any) -> tuple[int, Any]:
                answer = server.ask(method, f"{path}?{urlencode(query)}")
                return answer.status, json.loads(answer.data)

            yield ask


def answer_of(response: Any) -> tuple[int, Any]:
    return response.status_code, response.json()


def test_the_overview_counts_every_call_of_the_window(get: Get) -> None:
    status, told = get(f"{ANALYTICS}/overview", days=7)
    assert 200 == status
    generated = datetime.fromisoformat(told.pop("generated_at"))
    assert abs((datetime.now(UTC) - generated).total_seconds()) < 600
    percentiles = [told.pop(f"p{percent}_response_time_ms") for percent in (50, 90, 95, 99)]
    assert percentiles == pytest.approx([2000, 4000, 4000, 4000], rel=0.02)
    assert told == {
        "period_days": 7,
        "total_runs": 4,
        "successful_runs": 3,
        "failed_runs": 1,
        "success_rate": 75.0,
        "avg_confidence": pytest.approx((0.8 + 0.6 + 0.8) / 3),
        "avg_response_time_ms": 2500.0,
        "template_match_rate": pytest.approx(2 / 3),
        "intent_distribution": {"create_workflow": 3, "chat": 1},
        "user_role_distribution": {"admin": 4},
        "module_distribution": {"editor": 3},
        "truncated": False,
        "total_tokens": 600,
        "total_cost_usd": 1.5,
        "unpriced_runs": 1,
        "estimated_runs": 0,
        "estimated_cost_usd": 0.0,
        "change": {
            "total_runs": 300.0,
            "failed_runs": None,
            "avg_response_time_ms": 25.0,
            "total_tokens": 300.0,
            "total_cost_usd": 200.0,
        },
    }


def test_trends_have_a_line_for_each_day_with_calls(get: Get) -> None:
    status, told = get(f"{ANALYTICS}/trends", days=30)
    assert (200, 30) == (status, told["period_days"])
    by_day: dict[str, list[Call]] = {}
    for call in sorted(CALLS[:5], key=lambda call: call.start_ns):
        day = f"{datetime.fromtimestamp(call.start_ns / 1e9, UTC):%Y-%m-%d}"
        by_day.setdefault(day, []).append(call)
    assert [(day, len(calls)) for day, calls in by_day.items()] == [
        (line["date"], line["request_count"]) for line in told["trends"]
    ]
    assert {
        "date",
        "request_count",
        "avg_confidence",
        "confidence_std",
        "avg_response_time_ms",
        "response_time_std",
        "template_match_rate",
        "total_tokens",
        "total_cost_usd",
        "error_rate",
    } == set(told["trends"][0])
    hours = get(f"{ANALYTICS}/trends", days=1, period="hour")[1]["trends"]
    assert 3 == sum(line["request_count"] for line in hours)
    assert all(line["date"].endswith(":00:00Z") for line in hours)


def test_errors_come_by_type_with_the_latest_ones(get: Get) -> None:
    status, told = get(f"{ANALYTICS}/errors", days=7)
    assert (200, 1, 25.0) == (status, told["total_errors"], told["error_rate"])
    assert ({"RateLimitError": 1}, False) == (told["error_types"], told["truncated"])
    [recent] = told["recent_errors"]
    assert recent | {"timestamp": ""} == {
        "run_id": FAILED.id,
        "timestamp": "",
        "error_type": "RateLimitError",
        "error_message": "slow down",
        "user_role": "admin",
        "module": "editor",
        "tab": "main",
        "feature": "pid_verification",
        "model": "house-7b",
        "user_id": "ana",
    }
    at = datetime.fromisoformat(recent["timestamp"]).timestamp()
    assert at == pytest.approx(FAILED.start_ns / 1e9, abs=0.01)


def test_models_stand_side_by_side(get: Get) -> None:
    status, told = get(f"{ANALYTICS}/model-comparison")
    assert (200, 30) == (status, told["period_days"])
    best, other = told["model_comparison"]
    assert ("gpt-4o", 4, 100.0, 2.0, 0.5) == (
        best["model_name"],
        best["run_count"],
        best["success_rate"],
        best["total_cost_usd"],
        best["cost_per_call_usd"],
    )
    assert best["avg_confidence"] == pytest.approx(0.75)
    assert best["confidence_std"] == pytest.approx(0.1)
    assert ("house-7b", 0.0, 0.0, 1) == (
        other["model_name"],
        other["success_rate"],
        other["total_cost_usd"],
        other["unpriced_runs"],
    )
    assert other["p95_response_time_ms"] == pytest.approx(4000, rel=0.02)
    assert (4000.0, 0.0) == (other["avg_response_time_ms"], other["response_time_std"])


def test_prompt_versions_come_with_when_they_were_used_last(get: Get) -> None:
    status, told = get(f"{ANALYTICS}/prompt-analysis")
    assert 200 == status
    first, second = told["prompt_analysis"]
    assert ("v1", 4, "3.4.1") == (
        first["prompt_version"],
        first["run_count"],
        first["dspy_version"],
    )
    assert ("v2", 1, None) == (
        second["prompt_version"],
        second["run_count"],
        second["dspy_version"],
    )
    last = datetime.fromisoformat(first["last_used"]).timestamp()
    assert last == pytest.approx(CALLS[0].start_ns / 1e9, abs=0.01)


def test_the_report_holds_all_of_them(get: Get) -> None:
    status, told = get(f"{ANALYTICS}/report", days=30)
    assert 200 == status
    for name in ("trends", "errors", "model-comparison", "prompt-analysis"):
        alone = get(f"{ANALYTICS}/{name}", days=30)[1]
        assert alone == told[name.replace("-", "_")]
    assert 5 == told["overview"]["total_runs"]


@pytest.mark.parametrize(
    ("query", "runs"),
    [
        ({"feature": "pid_verification"}, 4),
        ({"experiment": "PFD to P&ID Conversion"}, 1),
        ({"model": "gpt-4o", "status": "success"}, 4),
        ({"status": "failed"}, 1),
        ({"user_id": "ana", "session_id": "s-1"}, 5),
        ({"user_id": "' OR 1=1 --"}, 0),
        ({"prompt_version": "v2"}, 1),
        ({"tag": "current_tab=main"}, 4),
        ({"tag": "current_tab=' OR ''='"}, 0),
        ({"persona_id": "%"}, 0),
        ({"provider": "openai"}, 5),
        ({"kind": "chat"}, 5),
        ({"kind": "retrieval"}, 0),
    ],
    ids=str,
)
def test_every_filter_leaves_only_its_calls(get: Get, query: dict[str, str], runs: int) -> None:
    for path in ("overview", "report"):
        status, told = get(f"{ANALYTICS}/{path}", days=30, **query)
        assert (200, runs) == (status, told.get("overview", told)["total_runs"])


def test_an_empty_window_answers_zeros_and_empty_lists(get: Get) -> None:
    status, told = get(f"{ANALYTICS}/report", days=1, user_id="nobody")
    assert 200 == status
    overview = told["overview"]
    assert (0, 0.0, 0.0, 0.0, {}) == (
        overview["total_runs"],
        overview["success_rate"],
        overview["avg_confidence"],
        overview["total_cost_usd"],
        overview["intent_distribution"],
    )
    assert [[], [], [], []] == [
        told["trends"]["trends"],
        told["errors"]["recent_errors"],
        told["model_comparison"]["model_comparison"],
        told["prompt_analysis"]["prompt_analysis"],
    ]


def test_health_says_how_much_there_is(get: Get) -> None:
    status, told = get(f"{ANALYTICS}/health")
    assert (200, "healthy", 5, 3) == (
        status,
        told["status"],
        told["total_runs"],
        told["experiments"],
    )
    assert told["last_run_at"].endswith("Z")
    assert (200, "healthy", True) == (
        get(f"{TRACKING}/health/")[0],
        *(get(f"{TRACKING}/health/")[1][name] for name in ("status", "enabled")),
    )


def test_experiments_have_their_feature_as_key(get: Get) -> None:
    status, told = get(f"{TRACKING}/experiments/")
    assert (200, True) == (status, told["enabled"])
    assert told["tracking_uri"].startswith(("http://127.0.0.1:", "sqlite:///"))
    named = {one["key"]: (one["name"], one["experiment_id"]) for one in told["experiments"]}
    assert {"Default", "pid_verification", "pfd_conversion"} == set(named)
    name, experiment_id = named["pid_verification"]
    assert "P&ID Design Verification" == name
    assert experiment_id.isdecimal()


def test_runs_come_flat_newest_first(get: Get) -> None:
    status, told = get(f"{TRACKING}/runs/", feature="pid_verification", limit=2)
    assert (200, "pid_verification", 2) == (status, told["feature"], len(told["runs"]))
    newest, failed = told["runs"]
    assert (CALLS[0].id, 2.0, 0.8, "success", "FINISHED", "gpt-4o") == (
        newest["run_id"],
        newest["metrics.execution_time"],
        newest["metrics.confidence_score"],
        newest["tags.status"],
        newest["status"],
        newest["params.model"],
    )
    assert "create_workflow" == newest["tags.detected_intent"]
    assert ("failed", "RateLimitError") == (failed["tags.status"], failed["tags.error_type"])
    assert "metrics.cost_usd" not in failed
    assert 5 == len(get(f"{TRACKING}/runs")[1]["runs"])


def test_metrics_are_over_every_run_of_a_feature(get: Get) -> None:
    status, told = get(f"{TRACKING}/metrics/", feature="pid_verification")
    assert 200 == status
    assert told == {
        "feature": "pid_verification",
        "metrics": {
            "total_runs": 4,
            "avg_execution_time": 2.5,
            "success_rate": 75.0,
            "avg_confidence": pytest.approx((0.8 + 0.6 + 0.8) / 3),
            "total_cost": 1.5,
            "total_tokens": 600,
            "unpriced_runs": 1,
            "estimated_runs": 0,
            "estimated_cost_usd": 0.0,
        },
    }
    assert 5 == get(f"{TRACKING}/metrics/")[1]["metrics"]["total_runs"]


def test_calls_and_sessions_come_page_by_page(get: Get) -> None:
    found, page = [], None
    while True:
        query = {"limit": 4, "session_id": "s-1"} | ({"page": page} if page else {})
        status, told = get("/api/flowledger/v1/recent", **query)
        assert 200 == status
        found += [call["id"] for call in told["calls"]]
        page = told["next"]
        if page is None:
            break
    newest_first = sorted(CALLS, key=lambda c: (c.start_ns // 10**6, c.id), reverse=True)
    assert [call.id for call in newest_first] == found
    [session] = get("/api/flowledger/v1/sessions")[1]["sessions"]
    named = tuple(session[name] for name in ("session_id", "user_id", "users", "calls"))
    assert ("s-1", "ana", 1, 5) == named


def test_one_call_comes_with_its_prompt_and_response(get: Get) -> None:
    status, told = get(f"/api/flowledger/v1/calls/{CALLS[0].id}")
    assert (200, CALLS[0].prompt) == (status, told["content"]["prompt"])
    assert 404 == get(f"/api/flowledger/v1/calls/{'0' * 32}")[0]


def test_usage_beyond_the_limit_is_summed_up_as_others(get: Get) -> None:
    whole = get("/api/flowledger/v1/usage", by="tag:current_module")[1]
    assert [("editor", 4), (None, 1)] == [(one["value"], one["calls"]) for one in whole["usage"]]
    assert None is whole["others"]
    short = get("/api/flowledger/v1/usage", by="tag:current_module", limit=1)[1]
    [kept] = short["usage"]
    assert ("editor", 4, 1) == (kept["value"], kept["calls"], short["others"]["calls"])
    assert 0.5 == short["others"]["cost_usd"]


@pytest.mark.parametrize("by", ["user_id", "model", "feature", "tag:detected_intent", "status"])
def test_usage_is_told_by_any_dimension(get: Get, by: str) -> None:
    status, told = get("/api/flowledger/v1/usage", by=by)
    assert (200, 5) == (status, sum(part["calls"] for part in told["usage"]))
    assert sum(part["cost_usd"] for part in told["usage"]) == pytest.approx(2.0)


def test_percentiles_are_told_with_any_filter(get: Get) -> None:
    told = get("/api/flowledger/v1/percentiles", user_id="ana")[1]
    assert (told["p50"], told["p99"]) == pytest.approx((2000, 4000), rel=0.02)


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        *((f"{ANALYTICS}/overview", {"days": days}, 422) for days in ("0", "-1", "abc", "1e9", "")),
        (f"{ANALYTICS}/overview", {"feature": "unknown"}, 404),
        (f"{ANALYTICS}/overview", {"feature": "' OR 1=1 --"}, 404),
        (f"{ANALYTICS}/report", {"experiment": "x'; DROP TABLE llm_calls; --"}, 404),
        (f"{ANALYTICS}/overview", {"status": "good"}, 422),
        (f"{ANALYTICS}/overview", {"tag": "no equals sign"}, 422),
        (f"{ANALYTICS}/overview", {"model": "x" * 501}, 422),
        *((f"{ANALYTICS}/overview", {name: "a\0=b"}, 422) for name in TEXT_FILTERS),
        *((f"{ANALYTICS}/overview", {name: "a\0b"}, 404) for name in ("experiment", "feature")),
        ("/api/flowledger/v1/calls/%00", {}, 404),
        (f"{ANALYTICS}/trends", {"period": "week"}, 422),
        (f"{ANALYTICS}/errors", {"limit": "0"}, 422),
        (f"{TRACKING}/runs/", {"feature": "unknown"}, 404),
        (f"{TRACKING}/runs/", {"limit": "100000"}, 422),
        (f"{TRACKING}/metrics/", {"feature": "unknown"}, 404),
        ("/api/flowledger/v1/recent", {"page": "next"}, 422),
        ("/api/flowledger/v1/recent", {"page": "1-' OR 1=1"}, 200),
        ("/api/flowledger/v1/sessions", {"page": "9" * 40}, 422),
        ("/api/flowledger/v1/usage", {"by": "password"}, 422),
        ("/api/flowledger/v1/usage", {"by": "feature, (SELECT 1)"}, 422),
        ("/api/flowledger/v1/calls/%25", {}, 404),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_answered_with_a_sentence(
    get: Get, path: str, query: dict[str, str], status: int
) -> None:
    answered, told = get(path, **query)
    assert status == answered
    if status != 200:
        assert "detail" in told
        assert "Traceback" not in json.dumps(told)


def test_experiments_that_were_deleted_are_restored(get: Get) -> None:
    status, told = get(f"{ANALYTICS}/experiments/recreate", method="POST")
    assert (200, "success") == (status, told["status"])
    assert {"P&ID Design Verification": "kept", "PFD to P&ID Conversion": "kept"} == {
        one["name"]: one["action"] for one in told["experiments"]
    }


def test_an_app_over_an_empty_folder_answers_zeros_and_makes_its_experiments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWLEDGER_EXPERIMENT", "intents")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow keeps there what it was told
    app = FastAPI()
    app.include_router(analytics_router())
    with TestClient(app) as client:
        assert 0 == client.get(f"{ANALYTICS}/overview").json()["total_runs"]
        made = client.post(f"{ANALYTICS}/experiments/recreate").json()
        assert [("intents", "created")] == [(e["name"], e["action"]) for e in made["experiments"]]
        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
        assert [{"lifecycle_stage": "active"}] == rows(
            uri, "SELECT lifecycle_stage FROM experiments WHERE name = 'intents'"
        )
        delete = "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'intents'"
        execute(uri, delete)
        again = client.post(f"{ANALYTICS}/experiments/recreate").json()
        assert [("intents", "restored")] == [(e["name"], e["action"]) for e in again["experiments"]]


def execute(uri: str, statement: str) -> None:
    import sqlite3

    with sqlite3.connect(uri.removeprefix("sqlite:///")) as connection:
        connection.execute(statement)
    connection.close()


def test_an_app_whose_database_is_away_answers_503() -> None:
    app = FastAPI()
    app.include_router(analytics_router("postgresql://nobody:secret@127.0.0.1:9/none"))
    with TestClient(app) as client:
        answer = client.get(f"{ANALYTICS}/overview")
    assert (503, "1") == (answer.status_code, answer.headers["Retry-After"])
    assert "secret" not in answer.text


def test_a_corrected_call_is_counted_once(tmp_path: Path, empty_sqlite: Path) -> None:
    shutil.copy(empty_sqlite, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    from flowledger.store.bulk import open_bulk

    sink = open_bulk(Destination(tracking_uri=uri, artifact_root="/x", store_as="run"))
    assert sink is not None
    sink.write([encode(CALLS[0])])
    sink.correct(msgspec.structs.replace(CALLS[0], cost_usd=0.75))
    sink.close()
    app = FastAPI()
    app.include_router(analytics_router(uri))
    with TestClient(app) as client:
        told = client.get(f"{ANALYTICS}/overview").json()
    assert (1, 0.75) == (told["total_runs"], told["total_cost_usd"])
