"""The folder that the workers of one server share for their numbers."""

import os
import shutil
import tempfile
import time
from pathlib import Path

__all__ = ["VARIABLE", "MetricsFolder"]

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
BOOT_ID = "_MLFLOW_SERVER_BOOT_ID"


class MetricsFolder:
    """The folder in which the workers of one server keep their numbers.

    `flowledger server` makes it and names it in the environment. Under plain `mlflow server` the
    workers agree on one by MLflow's id of that start, and the last to leave removes it.
    """

    def __init__(self) -> None:
        given = os.environ.get(VARIABLE)
        boot = os.environ.get(BOOT_ID) or f"{os.getpid()}-{time.time_ns()}"
        self.path = Path(given or Path(tempfile.gettempdir(), f"flowledger-metrics-{boot}"))
        self._ours = not given
        self._mark = self.path / f"worker-{os.getpid()}"
        self.path.mkdir(mode=0o700, exist_ok=True)
        self._mark.touch()
        os.environ[VARIABLE] = str(self.path)

    def leave(self) -> None:
        """This worker ends: its gauges count no more."""
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
        self._mark.unlink(missing_ok=True)
        if self._ours and not any(self.path.glob("worker-*")):
            shutil.rmtree(self.path, ignore_errors=True)
