"""What `run` does: the API over SQLite, a few messages, and what the ledger says of them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx

from flowledger.config import load
from flowledger.errors import FlowledgerError
from flowledger.testing.processes import serving

MESSAGES = (
    ("Automate the approval of invoices", "admin", "workflows"),
    ("Ask the analyst about last month", "user", "agents"),
    ("What does this tab show?", "user", "reports"),
)


def main() -> int:
    """Show the example and serve it; `--once` leaves then, a command runs in its surroundings."""
    arguments = sys.argv[1:]
    kept = Path(load().home, "examples", "intent_detection")
    kept.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{kept / 'mlflow.db'}")
    if arguments not in ([], ["--once"]):
        return subprocess.call(arguments)
    port = os.environ.get("INTENT_PORT", "8000")
    command, url = ["uvicorn", "app.main:app", "--port", port], f"http://127.0.0.1:{port}"
    try:
        with serving(command, f"{url}/docs", kept / "api.log"):
            show(url)
            if not arguments:
                print("\nServing until Ctrl-C.", flush=True)
                with suppress(KeyboardInterrupt):
                    signal.pause()
    except FlowledgerError as exc:
        sys.exit(f"intent_detection: {exc}")
    return 0


def show(url: str) -> None:
    """Send messages, wait until they are stored, and print what the endpoints answer."""
    wanted = stored(url) + len(MESSAGES)
    for text, role, module in MESSAGES:
        body = {"message": text, "user_role": role, "current_module": module}
        print(text, httpx.post(f"{url}/api/intent/detect", json=body, timeout=60).json())
    deadline = time.monotonic() + 60
    while stored(url) < wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    for path in ("overview?days=7", "strategies"):
        print(f"\nGET /api/analytics/mlflow/{path}")
        print(httpx.get(f"{url}/api/analytics/mlflow/{path}", timeout=60).text)
    print(flush=True)
    subprocess.run([sys.executable, "-m", "app.optimize"], check=True)
    place = os.environ["MLFLOW_TRACKING_URI"]
    print(f"\nAPI: {url}/docs\nMLflow UI: mlflow ui --backend-store-uri {place}")


def stored(url: str) -> int:
    """How many runs are stored so far."""
    told: int = httpx.get(f"{url}/api/analytics/mlflow/health", timeout=60).json()["total_runs"]
    return told


if __name__ == "__main__":
    sys.exit(main())
