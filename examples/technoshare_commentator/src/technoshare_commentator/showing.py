"""What `run` does: the servers the pipeline needs, four jobs, and a look at what is in MLflow."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from flowledger.config import load
from flowledger.errors import FlowledgerError
from flowledger.testing.processes import serving

from .config import read_env
from .offline.servers import offline

MODULE = "src.technoshare_commentator"
LINKS = (
    "https://arxiv.org/pdf/2401.00001",
    "https://github.com/technoshare/ledger",
    "https://example.org/article",
    "https://example.org/empty",
)
FILTERS = (
    "tags.outcome = 'success'",
    "tags.outcome = 'gate_failed'",
    "tags.domain = 'arxiv.org'",
    "tags.adapter_name = 'ArxivAdapter'",
)


def main() -> int:
    """Show the example and serve it; `--once` leaves then, a command runs in its surroundings."""
    arguments = sys.argv[1:]
    with ExitStack() as stack:
        try:
            environ = stack.enter_context(surroundings())
        except FlowledgerError as exc:
            sys.exit(f"technoshare_commentator: {exc}")
        if arguments not in ([], ["--once"]):
            return subprocess.call(arguments, env=environ)
        for module in (("submit", *LINKS), ("main_worker", "--until-empty"), ("showing", "--look")):
            command = ["python", "-m", f"{MODULE}.{module[0]}", *module[1:]]
            subprocess.run(command, env=environ, check=True)
        if not arguments:
            print("\nServing until Ctrl-C.", flush=True)
            with suppress(KeyboardInterrupt):
                signal.pause()
    return 0


@contextmanager
def surroundings() -> Iterator[dict[str, str]]:
    """The environment of `.env`, with MLflow's server, pages and Slack as it says."""
    kept = Path(load().home, "examples", "technoshare_commentator")
    port = os.environ.get("MLFLOW_PORT", "5000")
    if "MLFLOW_PORT" in os.environ:
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    read_env(Path(".env"))
    script = str(Path("scripts/start_mlflow.sh").absolute())
    url, log = f"http://127.0.0.1:{port}", kept / "mlflow.log"
    kept.mkdir(parents=True, exist_ok=True)
    command = ["sh", "-c", f"cd '{kept}' && exec '{script}'"]
    with offline() as (settings, _), serving(command, f"{url}/health", log):
        yield {**os.environ, **settings}


def look() -> None:
    """What MLflow's own search finds by the filters of the document."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    found = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    assert found is not None
    print(f"\nMLflow UI: {os.environ['MLFLOW_TRACKING_URI']}/#/experiments/{found.experiment_id}")
    for text in FILTERS:
        runs = client.search_runs([found.experiment_id], text)
        print(f"{text:<38}", *sorted({run.data.tags["target_url"] for run in runs}))


if __name__ == "__main__":
    if sys.argv[1:] == ["--look"]:
        look()
    else:
        sys.exit(main())
