"""The example in one command: its servers, some posts, and what the ledger says of them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from flowledger.config import load
from flowledger.errors import FlowledgerError
from flowledger.testing.processes import serving

__all__ = ["main"]

PERSONAS = {"viral_creator": "a viral AI meme", "tech_expert": "quantum computing"}
LOCAL = "http://127.0.0.1"


def main() -> None:
    """Show the example and serve it; with arguments, run them as a command in its surroundings."""
    command = sys.argv[1:]
    os.environ["FLOWLEDGER_HOME"] = str(Path(load().home, "examples", "threads_agent"))
    try:
        with _servers() as (tracking, orchestrator):
            if command in ([], ["--once"]):
                _show(tracking, orchestrator)
                command = command or ["sleep", "infinity"]
            sys.exit(0 if command == ["--once"] else subprocess.call(command))
    except KeyboardInterrupt:
        sys.exit(130)
    except FlowledgerError as exc:
        sys.exit(str(exc))


def _show(tracking: str, orchestrator: str) -> None:
    from services.celery_worker.main import celery
    from services.common.mlflow_openai_wrapper import chat_with_tracking

    for persona, topic in PERSONAS.items():
        print(f"{persona}: {chat_with_tracking('gpt-4o', f'In a line: {topic}', persona)}")
        asked = httpx.post(
            f"{orchestrator}/task",
            json={"persona_id": persona, "topic": topic},
            headers={"x-user-id": "demo", "x-audit-reason": "demo"},
            timeout=120,
        )
        print(celery.AsyncResult(asked.raise_for_status().json()["task_id"]).get(timeout=120))
    usage = f"{tracking}/api/flowledger/v1/usage?by=persona_id&days=1"
    print(f"\nCost per persona, {usage}:\n{httpx.get(usage, timeout=30).text}\n")
    print(f"MLflow's pages: {tracking}   metrics: {tracking}/metrics   {orchestrator}/docs")


@contextmanager
def _servers() -> Iterator[tuple[str, str]]:
    """MLflow's server, unless one is named, and the three services."""
    home, ports = Path(load().home), os.environ
    tracking = ports.get("MLFLOW_TRACKING_URI") or f"{LOCAL}:{ports.get('MLFLOW_PORT', '8085')}"
    runtime = f"{LOCAL}:{ports.get('PERSONA_RUNTIME_PORT', '8081')}"
    orchestrator = f"{LOCAL}:{ports.get('ORCHESTRATOR_PORT', '8080')}"
    database, artifacts = f"sqlite:///{home / 'mlflow.db'}", str(home / "mlartifacts")
    server = ["flowledger", "server", "--backend-store-uri", database]
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for name, command, url in (
            ("server", [*server, "--artifacts-destination", artifacts], tracking),
            ("persona_runtime", ["uvicorn", "services.persona_runtime.main:app"], runtime),
            ("orchestrator", ["uvicorn", "services.orchestrator.main:app"], orchestrator),
        ):
            if name != "server" or "MLFLOW_TRACKING_URI" not in os.environ:
                port = ["--port", url.rpartition(":")[2]]
                stack.enter_context(serving([*command, *port], f"{url}/", home / f"{name}.log"))
            if name == "server":  # what the services leave is sent before it stops
                stack.callback(subprocess.call, ["flowledger", "collect", "--once"])
            os.environ |= {"MLFLOW_TRACKING_URI": tracking, "PERSONA_RUNTIME_URL": runtime}
        worker = ["celery", "-A", "services.celery_worker.main", "worker", "--concurrency", "1"]
        log = stack.enter_context((home / "worker.log").open("ab"))
        process = subprocess.Popen(worker, stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        yield tracking, orchestrator
