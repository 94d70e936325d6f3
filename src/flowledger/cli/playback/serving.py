"""The server that a demo leaves running over what it stored."""

import socket
import time
from threading import Thread

import click
import urllib3

from flowledger.capture import recorder
from flowledger.cli.playback.performance import DATABASES
from flowledger.errors import ConfigError

__all__ = ["serve"]

HOST = "127.0.0.1"
FIRST_PORT, PORTS = 5000, 20
PAGES = {
    "": "MLflow's own pages: runs, traces, charts",
    "/api/docs": "what can be asked, and how",
    "/api/analytics/mlflow/overview?days=7": "all calls in numbers",
    "/api/analytics/mlflow/report?days=30": "by day, error, model and prompt",
    "/metrics": "the same for Prometheus",
    "/ledger": "the dashboard: spend, calls, errors, sessions, models",
}


def serve(port: int | None) -> None:
    """Run a flowledger server over the database that calls were just stored in, until Ctrl-C.

    Args:
        port: to listen on; the first free one from 5000 on when left out.

    Raises:
        ConfigError: the port is taken.
        StoreError: the server ended by itself.
    """
    begun = recorder.active()
    if begun is None or begun.settings.tracking_uri.partition(":")[0] not in DATABASES:
        return  # a server keeps them already
    from flowledger.server.launch import Launch, run

    port = port or _free_port()
    click.echo("")
    launch = Launch(
        host=HOST,
        port=port,
        workers=1,
        backend_store_uri=begun.settings.tracking_uri,
        artifacts_destination=begun.settings.artifact_root,
    )
    Thread(target=_tell_once_it_answers, args=(port,), daemon=True).start()
    run(launch, say=lambda line: click.echo(f"flowledger: {line}", err=True))


def _tell_once_it_answers(port: int) -> None:
    """Name its pages last of all, when they can be opened."""
    root = f"http://{HOST}:{port}"
    while not _answers(root):
        time.sleep(0.2)
    click.echo("\nA server shows them now, Ctrl-C stops it:\n")
    for path, shows in PAGES.items():
        click.echo(f"  {root}{path:<40}{shows}")


def _answers(root: str) -> bool:
    try:
        return urllib3.request("GET", f"{root}/health", retries=False, timeout=5).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ConfigError(f"every port from {FIRST_PORT} on is taken: choose one with --port")
