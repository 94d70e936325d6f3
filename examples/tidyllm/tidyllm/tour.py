"""The example in one command: a database, the document's calls, and a server that shows them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tidyllm
from flowledger.config import load, without_password
from flowledger.errors import FlowledgerError
from flowledger.testing.postgres import local_postgres
from tidyllm.infrastructure.tools.mlflow_evidence_checker import show_missing_evidence
from tidyllm.infrastructure.tools.mlflow_viewer import show_last_5_mlflow_records
from tidyllm.services import MLflowIntegrationService

__all__ = ["main"]

DATABASE = "vectorqa"
NAMED_BY = ("FLOWLEDGER_TRACKING_URI", "MLFLOW_TRACKING_URI")
QUESTIONS = {
    "direct": "What is a ledger?",
    "dspy": "Think step by step: what is 17 * 3?",
    "rag": "When may goods be returned?",
    "hybrid": "What do our docs say about retention?",
}


def main() -> None:
    """Show the example and serve it; with arguments, run them as a command in its surroundings."""
    os.environ["FLOWLEDGER_HOME"] = str(Path(load().home, "examples", "tidyllm"))
    os.environ.setdefault("FLOWLEDGER_CHAT_MODEL", _model())
    command = sys.argv[1:]
    try:
        with _database() as uri:
            os.environ["FLOWLEDGER_TRACKING_URI"] = uri
            if command in ([], ["--once"]):
                show()
                command = [] if command else _serving(uri)
            sys.exit(subprocess.call(command) if command else 0)
    except KeyboardInterrupt:
        sys.exit(130)
    except FlowledgerError as exc:
        sys.exit(str(exc))


def show() -> None:
    """Chat in every mode, log by hand, then look at what was recorded and what is missing."""
    for mode, question in QUESTIONS.items():
        answer = tidyllm.chat(
            question,
            chat_type=mode,
            reasoning=True,
            user_id="demo_user_123",
            session_id="demo",
            audit_reason="learning_session",
        )
        audit = answer["audit_trail"]
        print(f"{mode}: {answer['content'] or audit['error']}\n  {audit}\n")
    service = MLflowIntegrationService()
    service.log_llm_request("custom-model", "test prompt", "test response", 150.0)
    show_last_5_mlflow_records()
    show_missing_evidence()
    print(f"\n{service.statistics()}\n{service.health_check()}")


@contextmanager
def _database() -> Iterator[str]:
    """The database that is named and answers; where none does, one that is started here."""
    named = load().tracking_uri
    if any(map(os.environ.get, NAMED_BY)) or MLflowIntegrationService().is_connected:
        yield named
        return
    print(f"{without_password(named)} of settings.yaml does not answer: one is started here")
    with local_postgres(DATABASE) as uri:
        yield uri


def _model() -> str:
    """The document's model at the stub, which has every one; a cheap one that exists elsewhere."""
    if os.environ.get("ANTHROPIC_API_KEY", "stub") == os.environ.get("OPENAI_API_KEY", "stub"):
        return load().chat_model
    return "claude-haiku-4-5" if os.environ.get("ANTHROPIC_API_KEY") else "gpt-4o-mini"


def _serving(uri: str) -> list[str]:
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
    port = os.environ.get("MLFLOW_PORT", "5000")
    artifacts = str(Path(load().home, "mlartifacts"))
    print(f"\nhttp://127.0.0.1:{port} shows these runs in MLflow's pages; Ctrl-C stops it\n")
    return ["flowledger", "server", "--port", port, "--artifacts-destination", artifacts]
