"""Stored calls per second: our shipping, MLflow's fluent API, and the plain rows alone."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import median
from typing import NamedTuple

from bench.calls import make_calls, write_journals
from bench.places import Databases, postgresql, sqlite, temporary_folder
from bench.processes import Child
from bench.table import Goal, Row, at_least, times_better

__all__ = ["measure"]


class Size(NamedTuple):
    """How much is measured: calls a round, rounds, and calls of the slow peer a round."""

    calls: int
    rounds: int
    slow_calls: int


class Kind(NamedTuple):
    """A kind of database, what we must reach on it, and what the floor is called."""

    databases: Callable[[], AbstractContextManager[Databases]]
    per_second: float
    times_mlflow: Goal | None
    floor: str


FULL = Size(calls=20_000, rounds=3, slow_calls=20)
QUICK = Size(calls=3_000, rounds=1, slow_calls=8)
OF_PLAIN = 0.6
PATIENCE = 300
# A trace counts once it is stored.
MLFLOW_SYNCHRONOUS = {"MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false"}
KINDS = (
    Kind(sqlite, 2_500, times_better(250), "plain executemany"),
    Kind(postgresql, 1_500, None, "plain COPY"),
)


def measure(quick: bool) -> list[Row]:
    """Calls per second on each kind of database, in interleaved rounds."""
    size = QUICK if quick else FULL
    return [row for kind in KINDS for row in _kind(kind, size)]


def _kind(kind: Kind, size: Size) -> list[Row]:
    with kind.databases() as databases:
        rounds = [_round(databases, size, number) for number in range(size.rounds)]
    ours, plain, run, trace = (median(one) for one in zip(*rounds, strict=True))
    what = f"{databases.kind}, calls stored a second"

    def row(what: str, peer: str, peer_value: float, goal: Goal | None) -> Row:
        return Row(
            subject="store",
            what=what,
            value=ours,
            unit="/s",
            peer=peer,
            peer_value=peer_value,
            more_is_better=True,
            goal=goal,
        )

    return [
        row(what, kind.floor, plain, at_least(kind.per_second)),
        row(f"{what}, of the floor", kind.floor, plain, times_better(OF_PLAIN)),
        row(f"{what}, against runs", "mlflow.start_run", run, kind.times_mlflow),
        row(f"{what}, against runs and traces", "mlflow.start_run + start_span", trace, None),
    ]


def _round(databases: Databases, size: Size, number: int) -> tuple[float, ...]:
    """Calls per second of ours, of the plain rows, of MLflow's runs and of its runs and traces."""
    slow = _mlflow(databases, size.slow_calls, number)
    return (
        size.calls / _ours(databases, size.calls, number),
        size.calls / _plain(databases, size.calls, number),
        size.slow_calls / slow["runs"],
        size.slow_calls / slow["runs and traces"],
    )


def _ours(databases: Databases, calls: int, seed: int) -> float:
    uri = databases.new()
    with temporary_folder() as folder:
        journals = folder / "journal"
        write_journals(journals, make_calls(calls, seed=seed))
        with Child("ship", uri=uri, artifact_root=str(folder)) as child:
            seconds = child.ask("ship", PATIENCE, folder=str(journals))["seconds"]
    databases.drop(uri)
    return float(seconds)


def _plain(databases: Databases, calls: int, seed: int) -> float:
    uri = databases.new()
    with Child("plain", uri=uri) as child:
        child.ask("prepare", PATIENCE, calls=calls, seed=seed)
        seconds = float(child.ask("insert", PATIENCE))
    databases.drop(uri)
    return seconds


def _mlflow(databases: Databases, calls: int, seed: int) -> dict[str, float]:
    uri = databases.bare()
    with Child("mlflow_runs", MLFLOW_SYNCHRONOUS, uri=uri) as child:
        seconds: dict[str, float] = child.ask("log", PATIENCE, calls=calls, seed=seed)
    databases.drop(uri)
    return seconds
