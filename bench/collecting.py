"""A home with a collector of our own beside the application, as a sidecar would run."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.places import temporary_folder
from bench.processes import Child, clean_environment

__all__ = ["collecting"]

WARM_CALLS = 20
WARM_SECONDS = 60
LEAVE_SECONDS = 20


@contextmanager
def collecting() -> Iterator[dict[str, str]]:
    """The environment of applications whose calls a warm collector takes into a SQLite file."""
    with temporary_folder() as folder:
        environ = {
            "FLOWLEDGER_HOME": str(folder / "home"),
            "FLOWLEDGER_COLLECTOR": "off",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "FLOWLEDGER_ARTIFACT_ROOT": str(folder / "artifacts"),
        }
        collector = _start(folder, environ)
        try:
            _warm_up(environ)
            yield environ
        finally:
            _stop(collector)


def _start(folder: Path, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "collector.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "flowledger", "collect"],
            env={**clean_environment(), **environ},
            cwd=folder,
            stdout=log,
            stderr=log,
        )


def _warm_up(environ: dict[str, str]) -> None:
    """Wait until calls of a first application are stored."""
    with Child("application", environ) as child:
        child.ask("track", calls=WARM_CALLS)
        if not child.ask("flush", seconds=WARM_SECONDS):
            raise TimeoutError(f"no call was stored within {WARM_SECONDS} s")
    time.sleep(1)


def _stop(collector: subprocess.Popen[bytes]) -> None:
    """It finishes the batch under way; the rest goes with the folder."""
    collector.send_signal(signal.SIGTERM)
    try:
        collector.wait(LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
        collector.kill()
        collector.wait()
