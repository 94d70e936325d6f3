"""Our shipping: the real loop, from full journals into a store."""

import time
from pathlib import Path

from bench.processes import argument, serve
from flowledger.config import Destination
from flowledger.journal import segment_paths
from flowledger.shipping.loop import Loop
from flowledger.store import open_sink

GIVEN = argument()
DESTINATION = Destination(
    tracking_uri=GIVEN["uri"],
    artifact_root=GIVEN["artifact_root"],
    store_as=GIVEN.get("store_as", "run+trace"),
)


def open_() -> str:
    """Make the tables that are missing."""
    sink = open_sink(DESTINATION)
    sink.close()
    return type(sink).__name__


def ship(folder: str) -> dict[str, float]:
    """Seconds, and processor seconds, until the store has acknowledged every journal."""
    sink = open_sink(DESTINATION)
    loop = Loop(Path(folder), lambda: sink)
    started, processor = time.perf_counter(), time.process_time()
    while any(segment_paths(Path(folder))):
        time.sleep(loop.turn())
        if loop.error:
            raise RuntimeError(loop.error)
    seconds = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - processor}
    loop.close()
    return seconds


serve(open=open_, ship=ship)
