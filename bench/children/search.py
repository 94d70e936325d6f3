"""MLflow's own searches, as its UI and its client make them."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from mlflow import MlflowClient

from bench.processes import argument, serve

PATH = argument()["uri"].removeprefix("sqlite:///")
PAGE = 1000
client = MlflowClient(argument()["uri"])
ids = [experiment.experiment_id for experiment in client.search_experiments()]


def _runs(condition: str = "", order: str = "") -> Sequence[Any]:
    return client.search_runs(ids, condition, max_results=PAGE, order_by=[order] if order else None)


SEARCHES: dict[str, Callable[[], Sequence[Any]]] = {
    "runs, first page": _runs,
    "runs by start time": lambda: _runs(order="attributes.start_time DESC"),
    "runs by tag": lambda: _runs("tags.persona_id = 'editor'"),
    "runs by rare tag": lambda: _runs("tags.session_id = 'session-3-0'"),
    "runs by metric, ordered by it": lambda: _runs(
        "metrics.total_tokens > 1000", "metrics.total_tokens DESC"
    ),
    "traces, first page": lambda: client.search_traces(locations=ids, max_results=100),
    "traces of a user": lambda: client.search_traces(
        locations=ids, max_results=100, filter_string="metadata.`mlflow.trace.user` = 'user-3'"
    ),
}


def names() -> list[str]:
    """What can be searched for."""
    return list(SEARCHES)


def search(name: str, times: int) -> list[float]:
    """Seconds of each of so many searches; the first finds nothing of the file in memory."""
    _forget_file()
    return [_timed(SEARCHES[name]) for _ in range(times)]


def _timed(find: Callable[[], Sequence[Any]]) -> float:
    started = time.perf_counter()
    found = find()
    seconds = time.perf_counter() - started
    if not found:
        raise LookupError("nothing was found: this measures nothing")
    return seconds


def _forget_file() -> None:
    """Have the system drop what it caches of the database."""
    with open(PATH, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


serve(names=names, search=search)
