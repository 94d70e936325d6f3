"""How long `import flowledger` takes over Python alone, and which modules that is."""

import subprocess
import sys
import time
from statistics import median

from bench.processes import clean_environment
from bench.table import Row, at_most

__all__ = ["measure"]

RUNS, QUICK_RUNS = 40, 10
OVER_BARE_MS = 60
HEAVIEST = 5


def measure(quick: bool) -> list[Row]:
    """Milliseconds over bare Python, in interleaved runs, then the heaviest modules."""
    runs = [(_run("pass"), _run("import flowledger")) for _ in range(QUICK_RUNS if quick else RUNS)]
    bare, ours = (median(column) for column in zip(*runs, strict=True))
    return [
        Row(
            subject="import",
            what=f"flowledger over bare Python ({bare:.0f} ms)",
            value=ours - bare,
            unit="ms",
            goal=at_most(OVER_BARE_MS),
        ),
        *(_module(name, ms) for name, ms in _heaviest()),
    ]


def _run(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=clean_environment())
    return (time.perf_counter() - started) * 1e3


def _module(name: str, ms: float) -> Row:
    return Row(subject="import", what=f"of that, modules of {name}", value=ms, unit="ms")


def _heaviest() -> list[tuple[str, float]]:
    """The packages whose own modules take longest, as Python's `-X importtime` sees them."""
    report = _import_times("import flowledger")
    bare = {name for name, _ in _import_times("pass")}
    packages: dict[str, float] = {}
    for name, ms in report:
        if name not in bare:
            package = name.partition(".")[0]
            packages[package] = packages.get(package, 0) + ms
    return sorted(packages.items(), key=lambda pair: -pair[1])[:HEAVIEST]


def _import_times(code: str) -> list[tuple[str, float]]:
    """Module and milliseconds by itself, from lines `import time: self | cumulative | name`."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=clean_environment(),
    )
    cells = (line.removeprefix("import time:").split("|") for line in run.stderr.splitlines())
    rows = (line for line in cells if len(line) == 3 and line[0].strip().isdigit())
    return [(name.strip(), int(alone) / 1e3) for alone, _, name in rows]
