"""MLflow's own way to keep a call: a run with params, metrics and tags; a trace beside it."""

import time
from collections.abc import Callable

import mlflow

from bench.calls import FEATURES, make_calls
from bench.processes import argument, serve
from flowledger.store.entries import Entry, entry

mlflow.set_tracking_uri(argument()["uri"])


def log(calls: int, seed: int) -> dict[str, float]:
    """Seconds for so many calls, each way, after a first one that is not counted."""
    experiments = {name: mlflow.set_experiment(name).experiment_id for name in FEATURES}
    entries = [entry(call) for call in make_calls(calls + 1, seed=seed)]

    def run(kept: Entry) -> None:
        with mlflow.start_run(experiment_id=experiments[kept.experiment], run_name=kept.name):
            _fill(kept)

    def run_and_trace(kept: Entry) -> None:
        with mlflow.start_run(experiment_id=experiments[kept.experiment], run_name=kept.name):
            _fill(kept)
            _trace(kept)

    return {"runs": _timed(run, entries), "runs and traces": _timed(run_and_trace, entries)}


def _timed(keep: Callable[[Entry], None], entries: list[Entry]) -> float:
    keep(entries[0])
    started = time.perf_counter()
    for kept in entries[1:]:
        keep(kept)
    return time.perf_counter() - started


def _fill(kept: Entry) -> None:
    mlflow.log_params(dict(kept.params))
    mlflow.log_metrics(dict(kept.metrics))
    mlflow.set_tags(dict(kept.tags))


def _trace(kept: Entry) -> None:
    with mlflow.start_span(kept.name, kept.trace.span_type) as span:
        span.set_inputs(kept.call.prompt)
        span.set_attributes(kept.trace.attributes)
        span.set_outputs(kept.call.response)


serve(log=log)
