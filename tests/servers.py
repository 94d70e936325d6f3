"""Real servers for tests, each a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["answers_at", "free_port", "mlflow_server"]

START_SECONDS = 240


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def mlflow_server(
    backend: str, folder: Path, *options: str, port: int | None = None
) -> Iterator[str]:
    """`mlflow server` over a database, with these options; yields its URL.

    With `--app-name flowledger` among the options it is a flowledger server.
    """
    port = port or free_port()
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--port", str(port)]
    command += ["--backend-store-uri", backend, "--artifacts-destination", str(folder / "served")]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--workers", "1", *options],
            cwd=folder,
            env={**os.environ, "FLOWLEDGER_HOME": str(folder / "server-home")},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        answers_at(f"{url}/health", process, folder / "server.log")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def answers_at(url: str, process: subprocess.Popen[bytes], log: Path | None = None) -> None:
    """Wait until the process answers there; its log tells why it does not."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"the server did not start: {log.read_text()[-3000:] if log else url}")
