"""How much an application's memory grows while it records a hundred thousand calls."""

from bench.collecting import collecting
from bench.processes import Child
from bench.table import Row, at_most

__all__ = ["measure"]

CALLS, QUICK_CALLS = 100_000, 10_000
WARM_UP = 100
GROWTH_MB = 15


def measure(quick: bool) -> list[Row]:
    """Growth of the resident memory, in MB, from before the first call on."""
    calls = QUICK_CALLS if quick else CALLS
    with collecting() as environ, Child("application", environ) as child:
        before = child.ask("resident_bytes")
        warm = child.ask("track", calls=WARM_UP)
        after = child.ask("track", calls=calls - WARM_UP)
    return [
        _row(f"growth over {calls:,} calls", after - before, limit=GROWTH_MB),
        _row(f"of that, over the first {WARM_UP}", warm - before),
        _row("the application before its first call", before),
    ]


def _row(what: str, size: int, limit: float | None = None) -> Row:
    goal = None if limit is None else at_most(limit)
    return Row(subject="memory", what=what, value=size / 1e6, unit="MB", goal=goal)
