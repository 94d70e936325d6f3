"""What the record lacks: `python infrastructure/tools/mlflow_evidence_checker.py`."""

import sys

from flowledger.errors import FlowledgerError
from tidyllm.services import MLflowIntegrationService

__all__ = ["show_missing_evidence"]


def show_missing_evidence() -> None:
    """Print what is missing of all requests there are, each with the latest that lack it.

    Raises:
        FlowledgerError: the database does not answer.
    """
    service = MLflowIntegrationService()
    requests = service.requests()
    sums, missing, lost = requests.sums(), requests.missing(), service.ledger().losses().dropped
    print(f"=== MLflow Evidence: {sums.calls} requests ===")
    for one in missing:
        print(f"  {one.what}: missing in {one.calls}, the latest {', '.join(one.latest)}")
    if lost:
        print(f"  records: {lost} had no room where they were made, and are lost")
    if not missing and not lost:
        print("  nothing is missing")


if __name__ == "__main__":
    try:
        show_missing_evidence()
    except FlowledgerError as exc:
        sys.exit(str(exc))
