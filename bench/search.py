"""MLflow's own searches over many of our runs, on SQLite."""

from statistics import median

from bench.places import database_bytes, sqlite
from bench.processes import Child
from bench.table import Row, at_most

__all__ = ["measure"]

CALLS, QUICK_CALLS = 300_000, 20_000
DAYS = 30
TIMES, QUICK_TIMES = 5, 2
LIMIT_SECONDS = 1.5
FILL_SECONDS = 900


def measure(quick: bool) -> list[Row]:
    """Seconds of each search, the first one and the median of several, and what filling took."""
    calls = QUICK_CALLS if quick else CALLS
    with sqlite() as databases:
        uri = databases.new()
        with Child("bulk", uri=uri, artifact_root="/nowhere") as child:
            seconds = child.ask("fill", timeout=FILL_SECONDS, calls=calls, days=DAYS)
        size = database_bytes(uri)
        with Child("search", uri=uri) as child:
            times = QUICK_TIMES if quick else TIMES
            searches = [row for name in child.ask("names") for row in _search(child, name, times)]
    return [
        *searches,
        _row(f"storing {calls:,} calls", seconds, "s"),
        _row("of which a call takes up", size / calls / 1e3, "kB"),
    ]


def _search(child: Child, name: str, times: int) -> list[Row]:
    first, *others = child.ask("search", timeout=300, name=name, times=1 + times)
    return [
        _row(f"{name}, cold", first, "s", LIMIT_SECONDS),
        _row(f"{name}, median of {times}", median(others), "s", LIMIT_SECONDS),
    ]


def _row(what: str, value: float, unit: str, limit: float | None = None) -> Row:
    goal = None if limit is None else at_most(limit)
    return Row(subject="search", what=what, value=value, unit=unit, goal=goal)
