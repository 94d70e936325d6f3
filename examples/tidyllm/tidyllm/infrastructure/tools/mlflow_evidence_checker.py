"""What the record lacks: `python infrastructure/tools/mlflow_evidence_checker.py`."""

import sys

import flowledger
from flowledger.audit.evidence import check
from flowledger.audit.policy import policy_of
from flowledger.config import load
from flowledger.errors import FlowledgerError

__all__ = ["show_missing_evidence"]


def show_missing_evidence() -> None:
    """Print what all calls there are lack of what settings.yaml asks for, with examples.

    Raises:
        FlowledgerError: the database does not answer.
    """
    flowledger.flush()
    settings = load()
    found = check(settings, policy_of(settings))
    print(f"=== MLflow Evidence: {found.calls} calls ===")
    for short in found.shortfalls:
        print(f"  {short.what}: {short.count}, such as {', '.join(short.examples)}")
    if not found.shortfalls:
        print("  nothing is missing")


if __name__ == "__main__":
    try:
        show_missing_evidence()
    except FlowledgerError as exc:
        sys.exit(str(exc))
