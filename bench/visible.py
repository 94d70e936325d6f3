"""How soon a call that returned is there for MLflow's client, at a hundred calls a second."""

from statistics import median, quantiles

from bench.collecting import collecting
from bench.processes import Child
from bench.table import Row, at_most

__all__ = ["measure"]

SECONDS, QUICK_SECONDS = 30, 8
PER_SECOND = 100
LIMIT_SECONDS = 2
PATIENCE_SECONDS = 3


def measure(quick: bool) -> list[Row]:
    """Seconds from the return of `record` until `search_runs` has the run."""
    seconds = QUICK_SECONDS if quick else SECONDS
    with (
        collecting() as environ,
        Child("application", environ) as application,
        Child("watch", uri=environ["MLFLOW_TRACKING_URI"]) as watcher,
    ):
        application.ask("record", seconds=1, per_second=PER_SECOND)  # makes the experiments
        application.ask("flush", seconds=60)
        watcher.ask("watch", seconds=1)  # imports and connects
        watcher.send("watch", seconds=seconds + PATIENCE_SECONDS)
        returned = application.ask("record", seconds=seconds, per_second=PER_SECOND)
        seen: dict[str, float] = watcher.receive(seconds + 60)
    never = float(seconds + PATIENCE_SECONDS)
    return _rows([seen.get(run_id, at + never) - at for run_id, at in returned])


def _rows(delays: list[float]) -> list[Row]:
    """Every call must be in time, so the slowest decides."""
    what = f"a call at {PER_SECOND} calls/s in search_runs"
    goal = at_most(LIMIT_SECONDS)
    return [
        Row(subject="visible", what=f"{what}, median", value=median(delays), unit="s"),
        Row(subject="visible", what=f"{what}, p99", value=quantiles(delays, n=100)[-1], unit="s"),
        Row(subject="visible", what=f"{what}, slowest", value=max(delays), unit="s", goal=goal),
    ]
