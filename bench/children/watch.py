"""A reader that looks for new runs with MLflow's own client."""

import time

from mlflow import MlflowClient

from bench.processes import argument, serve

LOOK_SECONDS = 0.01
LATEST = 100

client = MlflowClient(argument()["uri"])


def watch(seconds: float) -> dict[str, float]:
    """When each run was first seen, from now on for so long."""
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    seen: dict[str, float] = {}
    deadline = time.time() + seconds
    while time.time() < deadline:
        runs = client.search_runs(ids, max_results=LATEST, order_by=["attributes.end_time DESC"])
        now = time.time()
        for run in runs:
            seen.setdefault(run.info.run_id, now)
        time.sleep(LOOK_SECONDS)
    return seen


serve(watch=watch)
