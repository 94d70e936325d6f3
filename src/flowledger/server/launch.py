"""Starting the server: `mlflow server --app-name flowledger`, with checks before it.

Everything that can be known to go wrong is told in one sentence before anything is started, and
everything that was started is gone when this returns.
"""

import configparser
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import msgspec

from flowledger.errors import ConfigError, StoreError
from flowledger.server import settings
from flowledger.server.launch_checks import check

__all__ = ["Launch", "run"]

UVICORN = "--timeout-graceful-shutdown 10"
FAST = " --loop uvloop --http httptools"
GRACE_SECONDS = 25.0
SECRET_KEY = "MLFLOW_FLASK_SERVER_SECRET_KEY"
USERS_CONFIG = "MLFLOW_AUTH_CONFIG_PATH"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a server: the options of `flowledger server`.

    `mlflow_options` are handed to `mlflow server` as they are.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    workers: int = 2
    backend_store_uri: str = "sqlite:///mlflow.db"
    artifacts_destination: str = "./mlartifacts"
    auth: str = ""
    allow_unauthenticated: bool = False
    mlflow_options: Sequence[str] = ()


def run(launch: Launch, say: Callable[[str], object]) -> None:
    """Check, start and keep a server until Ctrl-C or SIGTERM; a second one does not wait for it.

    Args:
        launch: how to run it.
        say: told in a line that it starts, once nothing is known to be wrong.

    Raises:
        ConfigError: an option cannot be used; the message says what to give instead.
        StoreError: the database cannot be used, or the server ended by itself.
    """
    settings.load()  # the workers would fail on it over and over
    check(launch)
    with (
        _until_stopped(),
        tempfile.TemporaryDirectory(prefix="flowledger-metrics-") as folder,
    ):
        environment = _environment(launch, folder)
        _prepare(environment)
        say(f"http://{launch.host}:{launch.port} starts, Ctrl-C stops it")
        code = _keep(_command(launch), environment)
        raise StoreError(f"the server ended by itself with exit code {code}: it says why above")


def _environment(launch: Launch, metrics_folder: str) -> dict[str, str]:
    """What the workers read; the database's address may hold a password, so it is no argument."""
    made = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **(_of_users(launch.backend_store_uri, metrics_folder) if launch.auth else {}),
    }
    return {
        **made,
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": launch.backend_store_uri,
        "PROMETHEUS_MULTIPROC_DIR": metrics_folder,
        "FLOWLEDGER_SERVER_AUTH": launch.auth,
    }


def _of_users(database: str, folder: str) -> dict[str, str]:
    """Where MLflow keeps its users: beside everything else, if that is in PostgreSQL.

    By itself it uses a file of its working directory, which several servers cannot share. Whoever
    names MLflow's own configuration in the environment is left alone.
    """
    made = {SECRET_KEY: secrets.token_hex(32)}
    if database.startswith("postgresql") and USERS_CONFIG not in os.environ:
        users = configparser.RawConfigParser()
        users.read(_mlflow_folder() / "server" / "auth" / "basic_auth.ini")
        users["mlflow"]["database_uri"] = database.replace("%", "%%")  # MLflow's parser reads %
        path = Path(folder, "basic_auth.ini")
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            users.write(file)
        made[USERS_CONFIG] = str(path)
    return made


def _mlflow_folder() -> Path:
    spec = find_spec("mlflow")  # found, not imported: MLflow is large
    return Path(spec.origin if spec and spec.origin else "").parent


def _command(launch: Launch) -> list[str]:
    return [
        *(sys.executable, "-m", "mlflow", "server", "--app-name", "flowledger"),
        *("--host", launch.host, "--port", str(launch.port)),
        *("--workers", str(launch.workers)),
        *("--artifacts-destination", launch.artifacts_destination),
        *("--uvicorn-opts", UVICORN if sys.platform == "win32" else UVICORN + FAST),
        *launch.mlflow_options,
    ]


def _prepare(environment: Mapping[str, str]) -> None:
    """Make and check the database's tables in a process of its own: MLflow is large."""
    done = subprocess.run(
        [sys.executable, "-m", "flowledger.server.prepare"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stdout.strip().rpartition("\n")[2]
        kind = ConfigError if done.returncode == 2 else StoreError
        raise kind(said or f"the database's check ended with exit code {done.returncode}")


def _keep(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the server until it ends, and leave nothing of it."""
    # In a session of its own: Ctrl-C reaches this process alone, and the server hears of it once.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait()
    except _Stopped:
        _stop(process)
        raise
    finally:
        _kill_what_is_left(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let it answer what it began, for a while."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)


def _kill_what_is_left(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Stopped(BaseException):
    """Somebody wants the server to stop."""


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """Leave the block when a signal to stop comes, as if it were done."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Stopped:
        return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
