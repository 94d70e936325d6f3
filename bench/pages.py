"""Every page of the dashboard over a million calls of 30 days, with the whole window asked for."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from statistics import median

import urllib3

from bench.places import Databases, postgresql, sqlite, temporary_folder
from bench.processes import Child
from bench.servers import serving
from bench.table import Row, at_most
from flowledger.questions import Ledger

__all__ = ["measure"]

CALLS, QUICK_CALLS = 1_000_000, 50_000
DAYS = 30
TIMES, QUICK_TIMES = 7, 3
FILL_SECONDS = 3600
LIMIT_MS = 500
PAGES = {
    "overview": "",
    "calls": "/calls",
    "calls, filtered": "/calls?feature=ticket_summary&status=failed",
    "calls of a user": "/calls?user_id=user-3",
    "calls, searched": "/calls?q=refund",
    "calls, searched for what is not there": "/calls?q=zzzz",
    "a call": "/calls/{id}",
    "sessions": "/sessions",
    "users": "/users",
    "models": "/models",
    "prompts": "/prompts",
    "errors": "/errors",
    "costs": "/costs",
    "costs by user": "/costs?by=user_id",
    "overview of a user": "?user_id=user-3",
    "audit of a day": "/audit?window=24h",
    "health": "/health",
}


def measure(quick: bool) -> Iterator[Row]:
    """Milliseconds of each page over HTTP, warm, on each kind of database: some 12 minutes."""
    for databases in (sqlite, postgresql):
        yield from _pages(databases, quick)


def _pages(
    databases: Callable[[], AbstractContextManager[Databases]], quick: bool
) -> Iterator[Row]:
    calls, times = (QUICK_CALLS, QUICK_TIMES) if quick else (CALLS, TIMES)
    with databases() as places, temporary_folder() as folder:
        uri = places.new()
        with Child("bulk", uri=uri, artifact_root="/nowhere") as child:
            how = {"store_as": "ledger", "scored": True, "days": DAYS - 0.01}
            child.ask("fill", timeout=FILL_SECONDS, calls=calls, **how)
        with Ledger(uri) as ledger:
            latest = ledger.recent(1)[0].id
        with serving(uri, folder, workers=1) as server:
            for name, path in PAGES.items():
                yield Row(
                    subject="pages",
                    what=f"{places.kind}, {name}",
                    value=_shown(f"{server.url}/ledger{path.replace('{id}', latest)}", times),
                    unit="ms",
                    goal=at_most(LIMIT_MS),
                )


def _shown(url: str, times: int) -> float:
    """The median of so many loads after a first one, in ms."""
    if "window=" not in url:
        url += ("&" if "?" in url else "?") + f"window={DAYS}d"
    seconds = []
    with urllib3.PoolManager() as pool:
        for _ in range(times + 1):
            started = time.perf_counter()
            answer = pool.request("GET", url, retries=False, timeout=60)
            seconds.append(time.perf_counter() - started)
            if answer.status != 200:
                raise ValueError(f"{url} answers {answer.status}")
    return median(seconds[1:]) * 1e3
