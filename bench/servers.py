"""A flowledger server of our own, on a port nobody uses."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import urllib3

from bench.processes import ROOT, clean_environment

__all__ = ["Server", "serving"]

START_SECONDS = 120
READY = "/api/flowledger/v1/ready"


class Server:
    """A running server: its address and its processes."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self._process = process

    def megabytes(self) -> float:
        """Resident memory of all its processes, counting what they share more than once."""
        processes = psutil.Process(self._process.pid).children(recursive=True)
        return sum(process.memory_info().rss for process in processes) / 1e6


@contextmanager
def serving(uri: str, folder: Path, workers: int) -> Iterator[Server]:
    """`flowledger server` over a database, once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "flowledger", "server", "--port", str(port)),
                *("--workers", str(workers)),
                *("--artifacts-destination", str(folder)),
            ],
            cwd=ROOT,
            env={**clean_environment(), "MLFLOW_BACKEND_STORE_URI": uri},
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url + READY, process, folder / "server.log")
        yield Server(url, process)
    finally:
        process.terminate()
        process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if urllib3.request("GET", url, timeout=5, retries=False).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            time.sleep(0.1)
    raise TimeoutError(f"the server is not ready: {log.read_text()[-2000:]}")
