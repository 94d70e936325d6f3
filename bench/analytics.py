"""The analytics API over a million calls, beside MLflow's search and pandas over 20,000 runs."""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import median

import urllib3

from bench.places import Databases, postgresql, sqlite, temporary_folder
from bench.processes import Child
from bench.servers import serving
from bench.table import Row, at_most

__all__ = ["measure"]

CALLS, QUICK_CALLS = 1_000_000, 50_000
RUNS, QUICK_RUNS = 20_000, 2_000
DAYS = 30
TIMES, QUICK_TIMES = 20, 3
FILL_SECONDS = 3600
LIMIT_MS, REPORT_MS = 100, 400
TIMES_PANDAS = 100
ANALYTICS, TRACKING = "/api/analytics/mlflow", "/api/v1/mlflow/tracking"
QUESTIONS = {
    "overview": (f"{ANALYTICS}/overview?days={DAYS}", LIMIT_MS),
    "overview of 7 days": (f"{ANALYTICS}/overview?days=7", LIMIT_MS),
    "trends": (f"{ANALYTICS}/trends?days={DAYS}", LIMIT_MS),
    "errors": (f"{ANALYTICS}/errors?days={DAYS}", LIMIT_MS),
    "model comparison": (f"{ANALYTICS}/model-comparison?days={DAYS}", LIMIT_MS),
    "prompt analysis": (f"{ANALYTICS}/prompt-analysis?days={DAYS}", LIMIT_MS),
    "tracking metrics": (f"{TRACKING}/metrics/?feature=intent_detection", LIMIT_MS),
    "report": (f"{ANALYTICS}/report?days={DAYS}", REPORT_MS),
    "overview of a feature": (f"{ANALYTICS}/overview?days={DAYS}&feature=ticket_summary", None),
    "overview of a user, of 7 days": (f"{ANALYTICS}/overview?days=7&user_id=user-3", None),
    "users": (f"/api/flowledger/v1/usage?by=user_id&days={DAYS}", None),
    "sessions of 7 days": ("/api/flowledger/v1/sessions?days=7", None),
}


def measure(quick: bool) -> list[Row]:
    """Milliseconds of each question over HTTP, warm, on each kind of database."""
    peer = _pandas(QUICK_RUNS if quick else RUNS)
    return [row for databases in (sqlite, postgresql) for row in _questions(databases, quick, peer)]


def _questions(
    databases: Callable[[], AbstractContextManager[Databases]], quick: bool, peer_ms: float
) -> list[Row]:
    calls, times = (QUICK_CALLS, QUICK_TIMES) if quick else (CALLS, TIMES)
    with databases() as places, temporary_folder() as folder:
        uri = places.new()
        with Child("bulk", uri=uri, artifact_root="/nowhere") as child:
            how = {"store_as": "ledger", "scored": True, "days": DAYS - 0.01}
            child.ask("fill", timeout=FILL_SECONDS, calls=calls, **how)
        with serving(uri, folder, workers=1) as server:
            return [
                _row(places.kind, name, _asked(server.url + path, times), limit, peer_ms)
                for name, (path, limit) in QUESTIONS.items()
            ]


def _asked(url: str, times: int) -> float:
    """The median of so many answers after a first one, in ms."""
    seconds = []
    with urllib3.PoolManager() as pool:
        for _ in range(times + 1):
            started = time.perf_counter()
            answer = pool.request("GET", url, retries=False, timeout=60)
            seconds.append(time.perf_counter() - started)
            if answer.status != 200 or not json.loads(answer.data):
                raise ValueError(f"{url} answers {answer.status}")
    return median(seconds[1:]) * 1e3


def _pandas(runs: int) -> float:
    """Milliseconds of an overview by `mlflow.search_runs` and pandas over so many runs."""
    with sqlite() as places:
        uri = places.new()
        with Child("bulk", uri=uri, artifact_root="/nowhere") as child:
            how = {"store_as": "run", "scored": True, "days": DAYS - 0.01}
            child.ask("fill", timeout=FILL_SECONDS, calls=runs, **how)
        with Child("pandas_overview", uri=uri) as child:
            seconds: float = child.ask("overview", timeout=FILL_SECONDS, days=DAYS, runs=runs)
            return seconds * 1e3


def _row(kind: str, name: str, ms: float, limit: float | None, peer_ms: float) -> Row:
    is_compared = name == "overview"
    return Row(
        subject="analytics",
        what=f"{kind}, {name}",
        value=ms,
        unit="ms",
        peer="search_runs + pandas over 20,000" if is_compared else "",
        peer_value=peer_ms if is_compared else None,
        goal=None if limit is None else at_most(limit),
    )
