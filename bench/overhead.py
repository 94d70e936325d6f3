"""What a caller pays for a call to be recorded: ours, `mlflow.trace`, OpenTelemetry.

Three applications in processes of their own take turns; while one is timed, the others wait with
empty queues. Each call is timed alone, one after the other without pause.
"""

from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median, quantiles
from typing import NamedTuple

from bench.places import temporary_folder
from bench.processes import Child
from bench.table import Goal, Row, at_most, times_better

__all__ = ["measure"]

ROUNDS, QUICK_ROUNDS = 15, 2
# As many calls a round as each can keep: a full queue would make the peers lose them, faster.
CALLS = {"flowledger": 2000, "mlflow.trace": 100, "OpenTelemetry": 1000}
WARM_UP = 50
MEDIAN_US, P99_US = 20, 100
TIMES = 5


class Cost(NamedTuple):
    """What the calls of one application cost, in microseconds.

    `took` is the caller's time for each call; `cpu` the processor time of the whole application
    for a call, round by round.
    """

    took: list[float]
    cpu: list[float]


def measure(quick: bool) -> list[Row]:
    """Median, 99th percentile and mean of each, and the processor time of the application."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        children = _children(stack, folder)
        record_bytes = children["flowledger"].ask("record_bytes", calls=WARM_UP)
        costs = _take_turns(children, QUICK_ROUNDS if quick else ROUNDS)
    return _rows(costs, record_bytes)


def _children(stack: ExitStack, folder: Path) -> dict[str, Child]:
    """The three applications, started and warm."""
    home = str(folder / "home")
    environ = {"FLOWLEDGER_HOME": home, "FLOWLEDGER_COLLECTOR": "off"}
    port = stack.enter_context(Child("sink")).ask("port")
    children = {
        "flowledger": Child("tracked", environ, home=home),
        "mlflow.trace": Child("traced", uri=f"sqlite:///{folder}/peer.db"),
        "OpenTelemetry": Child("otel", port=port),
    }
    for child in children.values():
        stack.enter_context(child)
        child.ask("timed", calls=WARM_UP)
    return children


def _take_turns(children: dict[str, Child], rounds: int) -> dict[str, Cost]:
    costs = {name: Cost([], []) for name in children}
    for _ in range(rounds):
        for name, child in children.items():
            timed = child.ask("timed", calls=CALLS[name])
            costs[name].took.extend(ns / 1e3 for ns in timed["took"])
            costs[name].cpu.append(timed["cpu"] / CALLS[name] / 1e3)
    return costs


def _rows(costs: dict[str, Cost], record_bytes: float) -> list[Row]:
    """Ours alone, then ours against each peer."""
    ours = costs.pop("flowledger")
    size = f"record of {record_bytes / 1e3:.1f} kB"
    return [
        _row(f"tracked call, median, {size}", median(ours.took), at_most(MEDIAN_US)),
        _row(f"tracked call, p99, {size}", _p99(ours.took), at_most(P99_US)),
        *(row for peer, cost in costs.items() for row in _against(peer, ours, cost)),
    ]


def _against(peer: str, ours: Cost, theirs: Cost) -> list[Row]:
    return [
        _row("median", median(ours.took), times_better(TIMES), peer, median(theirs.took)),
        _row("p99", _p99(ours.took), None, peer, _p99(theirs.took)),
        _row("mean", mean(ours.took), None, peer, mean(theirs.took)),
        _row("processor time, all threads", median(ours.cpu), None, peer, median(theirs.cpu)),
    ]


def _row(
    what: str,
    value: float,
    goal: Goal | None = None,
    peer: str = "",
    peer_value: float | None = None,
) -> Row:
    return Row(
        subject="overhead",
        what=what,
        value=value,
        unit="us",
        peer=peer,
        peer_value=peer_value,
        goal=goal,
    )


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100)[-1]
