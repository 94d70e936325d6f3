"""Ingest over HTTP into PostgreSQL: calls a second, beside the direct store in the same run."""

import gzip
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from statistics import median, quantiles

import urllib3

from bench.calls import make_calls, write_journals
from bench.places import Databases, postgresql, temporary_folder
from bench.processes import Child
from bench.servers import Server, serving
from bench.table import Goal, Row, at_least, at_most, times_better
from flowledger.journal.frames import frame
from flowledger.records import Producer, encode
from flowledger.store.http import CALLS_PATH, FRAMES

__all__ = ["Load", "make_batches", "measure", "warm"]

SECONDS, QUICK_SECONDS = 60, 8
BATCH_CALLS = 500
SENDERS = 2
WORKERS = 2
MOST_A_SECOND = 3_000  # more calls than are sent are made beforehand
DIRECT_CALLS, QUICK_DIRECT_CALLS = 20_000, 4_000
PER_SECOND, OF_DIRECT = 1_200, 0.7
BATCH_MS, OVERVIEW_MS, GROWTH_MB = 1_500, 300, 40
OVERVIEW = "/api/analytics/mlflow/overview?days=7"
HEADERS = {"Content-Type": FRAMES, "Content-Encoding": "gzip"}
PATIENCE = 600


def measure(quick: bool) -> list[Row]:
    """Calls a second over HTTP, how long batches and an overview take meanwhile, and memory."""
    seconds = QUICK_SECONDS if quick else SECONDS
    with postgresql() as databases, temporary_folder() as folder:
        direct = _direct(databases, QUICK_DIRECT_CALLS if quick else DIRECT_CALLS)
        uri = databases.new()
        batches = make_batches(seconds)
        with serving(uri, folder, WORKERS) as server:
            warm(server, batches, WORKERS)
            before = server.megabytes()
            load = Load([server], batches, seconds)
            growth = server.megabytes() - before
    overviews, sent = load.overviews, load.batches
    return [
        _row("calls stored a second over HTTP", load.per_second, "/s", at_least(PER_SECOND)),
        Row(
            subject="ingest",
            what="calls stored a second, of the direct store",
            value=load.per_second,
            unit="/s",
            peer="direct store",
            peer_value=direct,
            more_is_better=True,
            goal=times_better(OF_DIRECT),
        ),
        _row("a batch of 500, median", median(sent) * 1e3, "ms"),
        _row("a batch of 500, p99", quantiles(sent, n=100)[98] * 1e3, "ms", at_most(BATCH_MS)),
        _row("overview meanwhile, median", median(overviews) * 1e3, "ms", at_most(OVERVIEW_MS)),
        _row("overview meanwhile, slowest", max(overviews) * 1e3, "ms"),
        _row("memory of the server grew by", growth, "MB", at_most(GROWTH_MB)),
    ]


class Load:
    """Senders that post batch after batch for so long, while somebody looks at the overview.

    Each batch goes to the next of the servers, as a load balancer would have it.
    """

    def __init__(self, servers: Sequence[Server], batches: Iterator[bytes], seconds: float) -> None:
        self.batches: list[float] = []
        self.overviews: list[float] = []
        self._servers = itertools.cycle(servers)
        self._waiting = batches
        self._taking = threading.Lock()
        self._end = time.perf_counter() + seconds
        started = time.perf_counter()
        threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        threads.append(threading.Thread(target=self._look))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.per_second = len(self.batches) * BATCH_CALLS / (time.perf_counter() - started)

    def _send(self) -> None:
        with urllib3.PoolManager() as pool:
            while time.perf_counter() < self._end:
                with self._taking:
                    body, server = next(self._waiting), next(self._servers)
                self.batches.append(_post(pool, server, body))

    def _look(self) -> None:
        with urllib3.PoolManager() as pool:
            while time.perf_counter() < self._end:
                with self._taking:
                    server = next(self._servers)
                started = time.perf_counter()
                answer = pool.request("GET", server.url + OVERVIEW, retries=False)
                self.overviews.append(time.perf_counter() - started)
                if answer.status != 200:
                    raise ValueError(f"the overview answers {answer.status}")
                time.sleep(1)


def _post(pool: urllib3.PoolManager, server: Server, body: bytes) -> float:
    """Seconds until the batch is committed; one that is turned away for now is sent again."""
    started = time.perf_counter()
    while True:
        url = server.url + CALLS_PATH
        answer = pool.request("POST", url, body=body, headers=HEADERS, retries=False, timeout=90)
        if answer.status == 200:
            return time.perf_counter() - started
        if answer.status not in (429, 503):
            raise ValueError(f"ingest answers {answer.status}: {answer.data[:200]!r}")
        time.sleep(float(answer.headers.get("Retry-After", 1)))


def warm(server: Server, batches: Iterator[bytes], workers: int) -> None:
    """Every worker opens its connections and loads its price list."""
    for body in itertools.islice(batches, 4 * workers):
        with urllib3.PoolManager() as pool:
            _post(pool, server, body)


def make_batches(seconds: int) -> Iterator[bytes]:
    """Bodies as a shipper sends them, all made before the clock runs."""
    payloads: Sequence[bytes] = [encode(call) for call in make_calls(MOST_A_SECOND * seconds)]
    producer = encode(Producer(id=f"{2:032x}", producer=f"{2:032x}", host="bench", pid=1))
    return iter(
        [
            gzip.compress(b"".join(map(frame, [producer, *batch])), compresslevel=1)
            for batch in _in_batches(payloads)
        ]
    )


def _in_batches(payloads: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(payloads), BATCH_CALLS):
        yield payloads[start : start + BATCH_CALLS]


def _direct(databases: Databases, calls: int) -> float:
    """Calls a second of a collector on the same database."""
    uri = databases.new()
    with temporary_folder() as folder, Child("ship", uri=uri, artifact_root=str(folder)) as child:
        write_journals(folder / "journal", make_calls(calls, seed=7))
        seconds: float = child.ask("ship", timeout=PATIENCE, folder=str(folder / "journal"))[
            "seconds"
        ]
    databases.drop(uri)
    return calls / seconds


def _row(what: str, value: float, unit: str, goal: Goal | None = None) -> Row:
    return Row(subject="ingest", what=what, value=value, unit=unit, goal=goal)
