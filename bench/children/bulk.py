"""Fills a database through our bulk sink, without journals."""

import itertools
import time

from bench.calls import make_calls
from bench.processes import argument, serve
from flowledger.config import Destination
from flowledger.records import encode
from flowledger.store import open_sink

BATCH_CALLS = 1200
GIVEN = argument()


def fill(calls: int, days: float) -> float:
    """Seconds that the sink took for so many calls."""
    sink = open_sink(
        Destination(
            tracking_uri=GIVEN["uri"], artifact_root=GIVEN["artifact_root"], store_as="run+trace"
        )
    )
    payloads = map(encode, make_calls(calls, days=days))
    seconds = 0.0
    while batch := list(itertools.islice(payloads, BATCH_CALLS)):
        started = time.perf_counter()
        sink.write(batch)
        seconds += time.perf_counter() - started
    sink.close()
    return seconds


serve(fill=fill)
