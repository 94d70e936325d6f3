"""Processes to break: a host with applications and collectors that really run and really die."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import sqlalchemy as sa

from flowledger.journal import Segment, segment_paths

__all__ = [
    "FOLDER",
    "Application",
    "Host",
    "Ledger",
    "assert_unharmed",
    "eventually",
    "slow",
    "stopped",
    "until",
]

DEADLINE = 90.0
FOLDER = Path(__file__).parent
MOST_STALL_MS = 5.0

slow = pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="set SLOW_TESTS=1 to run it")


def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Wait for a condition and return what it gives; fails with `what` when it never holds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        time.sleep(0.05)
    return found


def eventually(expected: Any, actual: Callable[[], Any], seconds: float = DEADLINE) -> None:
    """Wait until the two are equal; fails with their difference when they never are."""
    deadline = time.monotonic() + seconds
    while (last := actual()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert expected == last


def assert_unharmed(told: dict[str, Any]) -> None:
    """An application got all its answers, and none of them late because of us."""
    print(told)
    assert told["calls"] > 0
    assert (0, []) == (told["wrong"], told["raised"])
    assert told["median_ms"] < MOST_STALL_MS


@contextmanager
def stopped(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """SIGSTOP processes for the time of the block: they hang, and their peers hear nothing."""
    hanging = list(processes)
    assert hanging
    for process in hanging:
        process.suspend()
    try:
        yield
    finally:
        for process in hanging:
            with suppress(psutil.NoSuchProcess):
                process.resume()


class Application:
    """`application.py` as a process of its own; what it logs stands in `log`."""

    def __init__(self, log: Path, environ: dict[str, str], program: Path) -> None:
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(program)],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
            )

    def ask(self, what: str, **arguments: Any) -> Any:
        """Have it do something and return its answer."""
        self.tell(what, **arguments)
        return json.loads(self._line())

    def tell(self, what: str, **arguments: Any) -> None:
        """Have it do something, and wait for no answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")

    def kill(self) -> None:
        """SIGKILL it."""
        self.process.kill()
        self._close()

    def leave(self) -> int:
        """Let it come to its end, and return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(DEADLINE)
        self._close()
        return self.process.returncode

    def warnings(self) -> list[str]:
        """What it logged so far, line by line."""
        return self.log.read_text().splitlines()

    def _line(self) -> bytes:
        """One line of its output, or a failure that shows what it logged."""
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
            piece = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            assert piece, f"no answer; it logged: {self.log.read_text()[-3000:]}"
            line += piece
        return line

    def _close(self) -> None:
        self.process.wait(DEADLINE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Host:
    """One machine as flowledger sees it: a home, what runs there, and what its journals hold.

    Args:
        folder: for logs; removed with the test.
        home: FLOWLEDGER_HOME of every process here.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.home = home
        self._folder = folder
        self._started: list[Application] = []

    def environ(self, uri: str, **settings: object) -> dict[str, str]:
        """The environment of a process that records to this store, with these settings."""
        ours = {f"FLOWLEDGER_{name.upper()}": str(value) for name, value in settings.items()}
        return {
            **os.environ,
            "FLOWLEDGER_HOME": str(self.home),
            "MLFLOW_TRACKING_URI": uri,
            **ours,
        }

    def start(
        self, uri: str, *, program: Path = FOLDER / "application.py", **settings: object
    ) -> Application:
        """Start an application that records to this store."""
        log = self._folder / f"application-{len(self._started)}.log"
        application = Application(log, self.environ(uri, **settings), program)
        self._started.append(application)
        return application

    def run(self, *command: str, uri: str, **settings: object) -> str:
        """Run a Python program to its end; returns what it logged."""
        done = subprocess.run(
            [sys.executable, *command],
            env=self.environ(uri, **settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE,
            text=True,
        )
        assert done.returncode == 0, f"{command} left with {done.returncode}: {done.stdout[-3000:]}"
        return done.stdout

    @contextmanager
    def running(self, *command: str, uri: str, **settings: object) -> Iterator[Path]:
        """Run a Python program until the end of the block, then SIGTERM it; gives its log."""
        log = self._folder / f"{command[1]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                env=self.environ(uri, **settings),
                cwd=FOLDER,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield log
        finally:
            process.terminate()
            process.wait(DEADLINE)

    def collect_once(self, uri: str, **settings: object) -> str:
        """Empty every journal, by hand."""
        return self.run("-m", "flowledger", "collect", "--once", uri=uri, **settings)

    def collector(self) -> psutil.Process | None:
        """The collector that holds the lock here, if there is one."""
        holders = [p for p in self.processes() if "collect" in p.cmdline() and _leads(p)]
        return holders[0] if holders else None

    def collector_log(self) -> list[str]:
        """What collectors logged, line by line."""
        log = self.home / "collector.log"
        return log.read_text().splitlines() if log.exists() else []

    def processes(self) -> Iterator[psutil.Process]:
        """Every process of this host, collectors included.

        A database server that was started meanwhile got the same environment, and is none of it.
        """
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = process.environ().get("FLOWLEDGER_HOME") == str(self.home)
                if ours and process.name() != "postgres":
                    yield process

    def waiting(self) -> int:
        """How many bytes the journals hold that the store does not have yet."""
        return sum(map(_waiting, self.segments()))

    def segments(self) -> list[Path]:
        """The files of all journals, oldest first."""
        folders = self.home.glob("journal/*/")
        return [path for folder in folders for path in segment_paths(folder)]

    def rejected(self) -> list[dict[str, Any]]:
        """What was rejected, with the reasons."""
        files = sorted(self.home.glob("journal/*/rejected/*.jsonl"))
        return [
            msgspec.json.decode(line) for file in files for line in file.read_bytes().splitlines()
        ]

    def clean_up(self) -> None:
        """End every process of this host, detached or not."""
        for application in self._started:
            application.kill()
        while processes := list(self.processes()):
            for process in processes:
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
            time.sleep(0.02)


class Ledger:
    """What a database holds of our calls."""

    def __init__(self, uri: str) -> None:
        self._engine = sa.create_engine(uri, poolclass=sa.pool.NullPool)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Whatever a query gives; nothing while there is no such table."""
        try:
            with self._engine.connect() as connection:
                return [tuple(row) for row in connection.exec_driver_sql(query)]
        except (sa.exc.OperationalError, sa.exc.ProgrammingError):
            return []

    def count(self, table: str = "llm_calls") -> int:
        """How many rows a table has."""
        found = self.rows(f"SELECT count(*) FROM {table}")
        return found[0][0] if found else 0

    def producers(self) -> dict[str, int]:
        """How many calls each process made, once it is sure that their numbers have no holes."""
        found = self.rows(
            "SELECT producer_id, min(seq), max(seq), count(DISTINCT seq), count(*)"
            " FROM llm_calls GROUP BY producer_id"
        )
        holes = {row for row in found if row[1:] != (1, row[4], row[4], row[4])}
        assert set() == holes, "numbers of a process are missing or were given twice"
        return {row[0]: row[4] for row in found}

    def wait_for_once(self, calls: int, host: Host) -> None:
        """So many calls arrive, each with one run and one trace, and nothing is left to come."""
        tables = ("llm_calls", "runs", "trace_info", "spans")
        eventually(
            dict.fromkeys(tables, calls), lambda: {name: self.count(name) for name in tables}
        )
        eventually(0, host.waiting)
        assert dict.fromkeys(tables, calls) == {name: self.count(name) for name in tables}
        assert [] == host.rejected()


def _leads(process: psutil.Process) -> bool:
    """Whether a process leads its session, as a collector does once it detached itself."""
    return os.getsid(process.pid) == process.pid


def _waiting(path: Path) -> int:
    with suppress(FileNotFoundError), Segment(path) as segment:
        return segment.waiting()
    return 0
