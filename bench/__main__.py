"""`python -m bench [NAMES...] [--quick] [--json FILE]`: measure, then print one table."""

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.machine import facts, headline
from bench.table import Row, as_json, render

SUBJECTS = {
    "overhead": "bench.overhead",
    "wrap": "bench.wrapping",
    "store": "bench.store",
    "search": "bench.search",
    "analytics": "bench.analytics",
    "pages": "bench.pages",
    "evidence": "bench.evidence",
    "months": "bench.months",
    "ingest": "bench.ingest",
    "scaling": "bench.scaling",
    "import": "bench.imports",
    "memory": "bench.memory",
    "visible": "bench.visible",
    "retrieval": "bench.retrieval",
}


def main() -> None:
    """Run the subjects that were asked for."""
    options = _options()
    machine = facts()
    rows: list[Row] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    try:
        for name in options.names or SUBJECTS:
            rows.extend(_measured(name, options.quick))
    finally:  # what was measured until then took minutes too
        if rows:
            print(headline(machine), render(rows), sep="\n\n", flush=True)
            if options.json:
                options.json.write_bytes(as_json(machine, rows))


def _measured(name: str, quick: bool) -> Iterator[Row]:
    """The rows of a subject, with a word on stderr about how it goes."""
    print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
    started = time.monotonic()
    yield from importlib.import_module(SUBJECTS[name]).measure(quick)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--quick", action="store_true", help="smaller and shorter")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(SUBJECTS))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    return options


if __name__ == "__main__":
    main()
