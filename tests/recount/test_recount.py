"""Every number that is shown is that of an independent recount, on both databases."""

import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import pytest
from click.testing import CliRunner
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from starlette.datastructures import QueryParams

from flowledger import config
from flowledger.cli import main
from flowledger.dashboard.pages.errors import errors as errors_page
from flowledger.dashboard.pages.shown import Shown
from flowledger.dashboard.pages.users import users as users_page
from flowledger.dashboard.view import View
from flowledger.questions import Filters, Ledger, Window
from flowledger.questions.compare import compare
from flowledger.records import encode
from flowledger.server.analytics import analytics_router
from tests.conftest import postgres_database
from tests.recount import counting
from tests.recount.counting import by, counted, percentile, sums
from tests.recount.making import CHARS, Made, make

ROOT = Path(__file__).parents[2]
CALLS, LIVE = (5_000, 200) if os.environ.get("SLOW_TESTS") else (700, 24)
SEED = 20_261_201
DAY_MS = 86_400_000
ANALYTICS, EXPLORING = "/api/analytics/mlflow", "/api/flowledger/v1"
FILTERS: list[dict[str, Any]] = [
    {},
    {"feature": "support"},
    {"model": "gpt-4o"},
    {"user_id": "ana"},
    {"status": "failed"},
    {"persona_id": "helper", "provider": "openai"},
]
DIMENSIONS = (
    *("feature", "model", "provider", "persona_id", "prompt_version", "status", "error_type"),
    *("user_id", "user_role", "session_id", "environment", "operation", "kind"),
    *("intent", "module", "tag:team"),
)
# What `flowledger stats` calls a dimension.
BY_STATS = {"user": "user_id", "session": "session_id", "error": "error_type", "model": "model"}
some = pytest.mark.parametrize("wanted", FILTERS, ids=str)


class Recount(NamedTuple):
    """One database with all calls, and the plain records of them."""

    made: Made
    uri: str
    metrics: str
    client: TestClient
    ledger: Ledger

    def ask(self, path: str, **query: Any) -> Any:
        """What the API answers."""
        answer = self.client.get(f"{path}?{urlencode(query)}")
        assert 200 == answer.status_code, answer.text
        return answer.json()

    def last(self, days: float, **wanted: str) -> list[dict[str, Any]]:
        """The calls of a window up to now."""
        return counted(self.made.plain, now_ms() - days * DAY_MS, math.inf, **wanted)


def now_ms() -> float:
    return time.time() * 1000


@pytest.fixture(scope="module")
def made() -> Made:
    return make(CALLS, SEED, LIVE)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def recount(
    request: pytest.FixtureRequest, made: Made, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recount]:
    """The same calls in each database in turn, stored by another process."""
    folder = tmp_path_factory.mktemp("recount")
    if request.param == "sqlite":
        path = folder / "mlflow.db"
        path.write_bytes(request.getfixturevalue("empty_sqlite").read_bytes())
        yield from stored(made, f"sqlite:///{path}", folder)
    else:
        with postgres_database(request.getfixturevalue("postgres_server")) as uri:
            yield from stored(made, uri, folder)


def stored(made: Made, uri: str, folder: Path) -> Iterator[Recount]:
    payloads, numbers = folder / "payloads", folder / "numbers"
    payloads.write_bytes(msgspec.msgpack.encode(list(map(encode, made.calls))))
    numbers.mkdir()
    metrics = subprocess.run(
        [sys.executable, "-m", "tests.recount.storing", uri, str(payloads)],
        cwd=ROOT,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(numbers)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    app = FastAPI()
    app.include_router(analytics_router(uri))
    with TestClient(app) as client, Ledger(uri) as ledger:
        yield Recount(made, uri, metrics, client, ledger)


def close(number: float | None) -> Any:
    return number if number is None else pytest.approx(number, rel=1e-9, abs=1e-12)


def speed(calls: list[dict[str, Any]], percent: int) -> Any:
    """A percentile as it may be answered: 2 % beside the nearest rank, as the docs say."""
    exact = percentile(calls, percent)
    return exact if exact is None else pytest.approx(exact, rel=0.02)


def test_the_calls_are_as_mixed_as_they_should_be(made: Made) -> None:
    assert CALLS + 2 * LIVE == len(made.calls)
    assert LIVE == sum(one["inner_calls"] > 0 for one in made.plain)
    for name in ("model", "user_role", "error_type"):
        assert 100 < len({one[name] for one in made.plain}), name
    assert {"", None, CHARS, "others"} <= {one["user_id"] for one in made.plain}


@some
@pytest.mark.parametrize("days", [1, 7, 30, 90])
def test_the_overview(recount: Recount, wanted: dict[str, Any], days: int) -> None:
    calls, told = (
        recount.last(days, **wanted),
        recount.ask(f"{ANALYTICS}/overview", days=days, **wanted),
    )
    expected = sums(calls)
    before = counted(
        recount.made.plain, now_ms() - 2 * days * DAY_MS, now_ms() - days * DAY_MS, **wanted
    )
    assert {
        "total_runs": len(calls),
        "failed_runs": expected["failed"],
        "total_tokens": expected["input_tokens"] + expected["output_tokens"],
        "total_cost_usd": close(expected["cost_usd"]),
        "unpriced_runs": expected["unpriced"],
        "avg_response_time_ms": close(expected["mean_ms"]),
        "avg_confidence": close(expected["mean_confidence"]),
        "truncated": False,
        **{f"p{n}_response_time_ms": speed(calls, n) for n in (50, 90, 95, 99)},
        **{
            f"{name}_distribution": {
                value: len(of) for value, of in by(calls, name).items() if value is not None
            }
            for name in ("intent", "user_role", "module")
        },
    } == {name: told[name] for name in told if name in OVERVIEW}
    grown = 100 * (len(calls) - len(before)) / len(before) if before else None
    assert close(grown) == told["change"]["total_runs"]


OVERVIEW = (
    *("total_runs", "failed_runs", "total_tokens", "total_cost_usd", "unpriced_runs"),
    *("avg_response_time_ms", "avg_confidence", "truncated"),
    *(f"p{n}_response_time_ms" for n in (50, 90, 95, 99)),
    *(f"{name}_distribution" for name in ("intent", "user_role", "module")),
)


@some
@pytest.mark.parametrize("period", ["day", "hour"])
def test_trends(recount: Recount, wanted: dict[str, Any], period: str) -> None:
    length = DAY_MS if period == "day" else DAY_MS // 24
    form = "%Y-%m-%d" if period == "day" else "%Y-%m-%dT%H:00:00Z"
    expected = {
        time.strftime(form, time.gmtime(start * length / 1000)): sums(calls)
        for start, calls in by(
            recount.last(30, **wanted), lambda one: one["start_ms"] // length
        ).items()
    }
    told = recount.ask(f"{ANALYTICS}/trends", days=30, period=period, **wanted)["trends"]
    assert {
        date: (one["calls"], close(one["cost_usd"]), close(one["mean_ms"]))
        for date, one in expected.items()
    } == {
        one["date"]: (one["request_count"], one["total_cost_usd"], one["avg_response_time_ms"])
        for one in told
    }
    assert {date: pytest.approx(one["std_ms"], rel=1e-6) for date, one in expected.items()} == {
        one["date"]: one["response_time_std"] for one in told
    }


@some
def test_errors(recount: Recount, wanted: dict[str, Any]) -> None:
    failed = [one for one in recount.last(90, **wanted) if one["failed"]]
    told = recount.ask(f"{ANALYTICS}/errors", days=90, **wanted)
    assert len(failed) == told["total_errors"]
    types = {value or "unknown": len(calls) for value, calls in by(failed, "error_type").items()}
    assert types == told["error_types"]
    latest = sorted(failed, key=lambda one: (one["start_ms"], one["id"]), reverse=True)[:10]
    assert [one["id"] for one in latest] == [one["run_id"] for one in told["recent_errors"]]


@some
def test_models(recount: Recount, wanted: dict[str, Any]) -> None:
    told = recount.ask(f"{ANALYTICS}/model-comparison", days=90, **wanted)["model_comparison"]
    expected = by(recount.last(90, **wanted), "model")
    assert {
        model or "none": (len(calls), close(sums(calls)["cost_usd"]), sums(calls)["unpriced"])
        for model, calls in expected.items()
    } == {
        one["model_name"]: (one["run_count"], one["total_cost_usd"], one["unpriced_runs"])
        for one in told
    }
    assert {
        model or "none": (speed(calls, 50), speed(calls, 95)) for model, calls in expected.items()
    } == {
        one["model_name"]: (one["p50_response_time_ms"], one["p95_response_time_ms"])
        for one in told
    }


@some
def test_prompts(recount: Recount, wanted: dict[str, Any]) -> None:
    told = recount.ask(f"{ANALYTICS}/prompt-analysis", days=90, **wanted)["prompt_analysis"]
    expected = by(recount.last(90, **wanted), "prompt_version")
    expected.pop(None, None)
    assert {version: len(calls) for version, calls in expected.items()} == {
        one["prompt_version"]: one["run_count"] for one in told
    }


@some
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_usage(recount: Recount, wanted: dict[str, Any], dimension: str) -> None:
    told = recount.ask(f"{EXPLORING}/usage", by=dimension, days=90, limit=1000, **wanted)
    calls = recount.last(90, **wanted)
    assert numbers_by(calls, dimension) == {
        one["value"]: tuple(one[name] for name in NUMBERS) for one in told["usage"]
    }
    assert None is told["others"]
    short = recount.ask(f"{EXPLORING}/usage", by=dimension, days=90, limit=1, **wanted)
    parts = [*short["usage"], *([short["others"]] if short["others"] else [])]
    assert sums(calls)["calls"] == sum(one["calls"] for one in parts)
    assert close(sums(calls)["cost_usd"]) == math.fsum(one["cost_usd"] for one in parts)


NUMBERS = ("calls", "failed", "input_tokens", "output_tokens", "cost_usd", "unpriced")


def numbers_by(calls: list[dict[str, Any]], dimension: str) -> dict[str | None, Any]:
    found = {}
    for value, of in by(calls, dimension).items():
        total = sums(of)
        found[value] = tuple(
            close(total[name]) if name == "cost_usd" else total[name] for name in NUMBERS
        )
    return found


def test_sessions(recount: Recount) -> None:
    found: list[Any] = []
    page = None
    while True:
        query = {"days": 90, "limit": 7} | ({"page": page} if page else {})
        told = recount.ask(f"{EXPLORING}/sessions", **query)
        found, page = found + told["sessions"], told["next"]
        if page is None:
            break
    expected = {}
    for session, calls in by(recount.last(90), "session_id").items():
        users = {counting.value_of(one, "user_id") for one in calls} - {None}
        only = next(iter(users)) if len(users) == 1 else None
        expected[session] = (len(calls), only, len(users), close(sums(calls)["cost_usd"]))
    expected.pop(None)
    assert expected == {
        one["session_id"]: (one["calls"], one["user_id"], one["users"], one["cost_usd"])
        for one in found
    }


@some
def test_python_questions_over_windows_of_any_length(
    recount: Recount, wanted: dict[str, Any]
) -> None:
    chance = random.Random(str(wanted))
    newest = round(now_ms())
    for _ in range(12):
        start = newest - chance.randrange(90 * DAY_MS)
        end = start + chance.choice([chance.randrange(DAY_MS), chance.randrange(40 * DAY_MS)])
        calls = counted(recount.made.plain, start, end, **wanted)
        over = recount.ledger.over(Window(start, end), Filters(**wanted))
        expected, total = sums(calls), over.sums()
        assert [expected[name] for name in NUMBERS if name != "cost_usd"] == [
            getattr(total, name) for name in NUMBERS if name != "cost_usd"
        ]
        assert close(expected["cost_usd"]) == total.cost_usd
        for percent in (50, 95):
            assert speed(calls, percent) == getattr(over.percentiles(), f"p{percent}")
        for dimension in ("feature", "user_id", "intent"):
            assert {value: len(of) for value, of in by(calls, dimension).items()} == {
                row.value: row.calls for row in over.by(dimension)
            }
        speeds = over.percentiles_by("feature")
        assert {value: speed(of, 95) for value, of in by(calls, "feature").items()} == {
            value: of.p95 for value, of in speeds.items()
        }


def test_models_that_are_compared(recount: Recount) -> None:
    models = ("gpt-4o", "gpt-4o-mini")
    found = compare(
        models,
        lambda model: recount.ledger.over(filters=Filters(model=model)),
    )
    for model, side in zip(models, found.models, strict=True):
        calls = counted(recount.made.plain, 0, math.inf, model=model)
        assert (len(calls), close(sums(calls)["mean_ms"])) == (side.calls, side.mean_latency_ms)
        assert side.p95_latency_interval is not None
        low, high = side.p95_latency_interval
        assert low <= (percentile(calls, 95) or 0) <= high


def run(recount: Recount, *words: str) -> str:
    told = CliRunner().invoke(main, list(words), env={"FLOWLEDGER_TRACKING_URI": recount.uri})
    assert 0 == told.exit_code, told.stderr
    return told.stdout


@pytest.mark.parametrize("dimension", BY_STATS)
def test_stats(recount: Recount, dimension: str) -> None:
    words = ("stats", "--by", dimension, "-n", "9999", "--days", "90", "--json")
    rows = json.loads(run(recount, *words))["rows"]
    expected = by(recount.last(90), BY_STATS[dimension])
    assert sorted((value or "(none)", len(calls)) for value, calls in expected.items()) == sorted(
        (one["name"], one["calls"]) for one in rows
    )


def test_the_export(recount: Recount) -> None:
    rows = {one["id"]: one for one in map(json.loads, run(recount, "export").splitlines())}
    plain = {one["id"]: one for one in recount.made.plain}
    assert plain.keys() == rows.keys()
    for name in ("feature", "model", "user_id", "session_id", "user_role", "error_type"):
        assert {key: one[name] or None for key, one in plain.items()} == {
            key: one[name] for key, one in rows.items()
        }
    inner = {key for key, one in plain.items() if not one["inner_calls"]}
    assert {key: close(plain[key]["cost"]) for key in inner} == {
        key: rows[key]["cost_usd"] for key in inner
    }
    assert {key: close(one["ms"]) for key, one in plain.items()} == {
        key: one["latency_ms"] for key, one in rows.items()
    }


def test_the_report_says_how_many_more_there_are(recount: Recount, tmp_path: Path) -> None:
    run(recount, "report", "--days", "90", "--output", str(tmp_path / "report.md"))
    text = (tmp_path / "report.md").read_text()
    for dimension in ("model", "error_type"):
        values = by(recount.last(90), dimension).keys() - (
            {None} if dimension != "model" else set()
        )
        assert f"and {len(values) - 20:,} more" in text


def test_the_counters_of_metrics(recount: Recount) -> None:
    samples = [
        sample
        for family in text_string_to_metric_families(recount.metrics)
        for sample in family.samples
    ]

    def total(name: str, **labels: str) -> float:
        return math.fsum(
            one.value
            for one in samples
            if one.name == name and labels.items() <= one.labels.items()
        )

    calls = counted(recount.made.plain, 0, math.inf)
    expected = sums(calls)
    for labels, some in (
        ({}, calls),
        ({"model": "gpt-4o"}, [one for one in calls if one["model"] == "gpt-4o"]),
        ({"feature": "none"}, [one for one in calls if not one["feature"]]),
    ):
        assert len(some) == total("flowledger_calls_total", **labels)
        assert sums(some)["unpriced"] == total("flowledger_unpriced_calls_total", **labels)
        assert close(sums(some)["cost_usd"]) == total("flowledger_cost_usd_total", **labels)
    assert expected["failed"] == total("flowledger_calls_total", status="failed")
    assert expected["input_tokens"] == total("flowledger_tokens_total", direction="input")
    assert len(calls) == total("flowledger_call_latency_seconds_count")
    fast = sum(one["ms"] <= 1000 for one in calls)
    assert fast == total("flowledger_call_latency_seconds_bucket", le="1.0")


def page(recount: Recount, path: str, show: Callable[[Shown, str], Any]) -> dict[str, Any]:
    """What a page shows of the last 30 days."""
    view = View.of("/ledger", path, QueryParams({"window": "30d"})).fitted(recount.ledger)
    settings = config.load(tracking_uri=recount.uri)
    context: dict[str, Any] = show(Shown(recount.ledger, None, view, settings), "")[1]
    return context


def test_the_page_of_users(recount: Recount) -> None:
    shown = page(recount, "users", users_page)
    calls = recount.last(30)
    assert {user or "(none)": f"{len(of):,}" for user, of in by(calls, "user_id").items()} == {
        who: text for who, text, _ in shown["calls"].rows
    }
    assert shown["calls"].summary.startswith(f"{len(calls):,} calls in all")


def test_the_page_of_errors(recount: Recount) -> None:
    shown = page(recount, "errors", errors_page)
    failed = [one for one in recount.last(30) if one["failed"]]
    assert {value: len(of) for value, of in by(failed, "error_type").items()} == {
        row.value: row.failed for row in shown["rows"]
    }
    assert shown["by_model"].summary.startswith(f"{len(failed):,} calls in all")
