"""The example in one command: a database, the document's calls, and a server that shows them."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import tidyllm
from flowledger.config import load, without_password
from flowledger.errors import FlowledgerError
from flowledger.testing.postgres import local_postgres
from tidyllm.infrastructure.tools.mlflow_evidence_checker import show_missing_evidence
from tidyllm.infrastructure.tools.mlflow_viewer import show_last_5_mlflow_records
from tidyllm.services import MLflowIntegrationService

if TYPE_CHECKING:
    from flowledger.chat.steps import ChatType

__all__ = ["main"]

QUESTIONS: "dict[ChatType, str]" = {
    "direct": "What is a ledger?",
    "dspy": "Think step by step: what is 17 * 3?",
    "rag": "When may goods be returned?",
    "hybrid": "What do our docs say about retention?",
}
WHO = {"user_id": "demo_user_123", "session_id": "demo", "audit_reason": "learning_session"}


def main() -> None:
    """Show the example and serve it; with arguments, run them as a command in its surroundings."""
    os.environ["FLOWLEDGER_HOME"] = str(Path(load().home, "examples", "tidyllm"))
    os.environ.setdefault("FLOWLEDGER_CHAT_MODEL", _model())
    os.environ.setdefault("MLFLOW_ARTIFACTS_DESTINATION", str(Path(load().home, "mlartifacts")))
    uri, command = load().tracking_uri, sys.argv[1:]
    answers = MLflowIntegrationService().is_connected
    if not answers:
        print(f"{without_password(uri)} does not answer: a database is started here")
    try:
        with nullcontext(uri) if answers else local_postgres("vectorqa") as uri:
            os.environ |= {"FLOWLEDGER_TRACKING_URI": uri, "MLFLOW_BACKEND_STORE_URI": uri}
            if command in ([], ["--once"]):
                show()
                command = ["true"] if command else ["flowledger", "server"]
            sys.exit(subprocess.call(command))
    except KeyboardInterrupt:
        sys.exit(130)
    except FlowledgerError as exc:
        sys.exit(str(exc))


def show() -> None:
    """Chat in every mode, log by hand, then look at what was recorded and what is missing."""
    for mode, question in QUESTIONS.items():
        answer = tidyllm.chat(question, mode, reasoning=True, **WHO)
        audit = answer["audit_trail"]
        print(f"{mode}: {answer['content'] or audit['error']}\n  {audit}\n")
    service = MLflowIntegrationService()
    service.log_llm_request("custom-model", "test prompt", "test response", 150.0)
    show_last_5_mlflow_records()
    show_missing_evidence()
    print(f"\n{service.statistics()}\n{service.health_check()}")


def _model() -> str:
    """The document's model at the stub, which has every one; a cheap one that exists elsewhere."""
    keys = [os.environ.get(f"{name}_API_KEY") for name in ("ANTHROPIC", "OPENAI")]
    if keys[0] == keys[1]:
        return load().chat_model
    return "claude-haiku-4-5" if keys[0] else "gpt-4o-mini"
