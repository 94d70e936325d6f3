"""What `run` does: PostgreSQL, the MLflow server and Django, and then a look at what they keep."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from flowledger.config import load
from flowledger.errors import FlowledgerError
from flowledger.testing.postgres import local_postgres
from flowledger.testing.processes import serving

PATIENCE = 60.0
OPERATIONS = 14
SHEET = b"1 | A. Writer | The valve is missing | Added\n2 | B. Reader | Wrong size |\n"
# A grey PNG of 1x1 stands for a drawing.
DRAWING = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGM4AQAAzADL8bmhqAAAAABJRU5ErkJggg=="
)


def main() -> int:
    """Show the example and serve it; `--once` leaves then, a command runs in its surroundings."""
    arguments = sys.argv[1:]
    with ExitStack() as stack:
        try:
            environ = stack.enter_context(surroundings())
        except FlowledgerError as exc:
            sys.exit(f"aiflow: {exc}")
        if arguments not in ([], ["--once"]):
            return subprocess.call(arguments, env=environ)
        address = f"127.0.0.1:{environ.get('AIFLOW_PORT', '8000')}"
        command = ["python", "manage.py", "runserver", "--noreload", address]
        stack.enter_context(serving(command, f"http://{address}/", kept("django.log"), environ))
        show(f"http://{address}", environ)
        if not arguments:
            print("\nServing until Ctrl-C.", flush=True)
            with suppress(KeyboardInterrupt):
                signal.pause()
    return 0


def kept(name: str) -> Path:
    """Where something of this example is kept."""
    return Path(load().home, "examples", "aiflow", name)


@contextmanager
def surroundings() -> Iterator[dict[str, str]]:
    """The environment that docker-compose would give, with the servers it names running."""
    with ExitStack() as stack:
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "aiflow.settings"}
        environ.setdefault("DJANGO_DEBUG", "true")
        if not environ.get("MLFLOW_BACKEND_STORE_URI"):
            database = stack.enter_context(local_postgres("aiflow"))
            environ["MLFLOW_BACKEND_STORE_URI"] = database
        if not environ.get("MLFLOW_TRACKING_URI"):
            port = environ.get("MLFLOW_PORT", "5000")
            url = environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
            command = ["flowledger", "server", "--workers", "1", "--port", port]
            command += ["--artifacts-destination", str(kept("artifacts"))]
            stack.enter_context(serving(command, f"{url}/health", kept("mlflow.log"), environ))
        subprocess.run(["python", "manage.py", "migrate", "-v0"], env=environ, check=True)
        yield environ


def show(url: str, environ: Mapping[str, str]) -> None:
    """Do each of the platform's operations, and print what the API then says of them."""
    before = total(url)
    post(f"{url}/api/v1/pid/verify/?name=P-101", DRAWING)
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


if __name__ == "__main__":
    sys.exit(main())
