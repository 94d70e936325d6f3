"""The latest records, as an auditor reads them: `python infrastructure/tools/mlflow_viewer.py`."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from flowledger.errors import FlowledgerError
from flowledger.questions import StoredCall
from tidyllm.services import MLflowIntegrationService

__all__ = ["show_last_5_mlflow_records"]

NOT_GIVEN = "(not given)"


def show_last_5_mlflow_records() -> None:
    """Print the five requests that began last, the latest first.

    Raises:
        FlowledgerError: the database does not answer.
    """
    service = MLflowIntegrationService()
    for run in service.requests().runs(limit=5):
        print("\n".join(_record(service.ledger().call(run.id))), end="\n\n")


def _record(call: StoredCall) -> Iterator[str]:
    started = datetime.fromtimestamp(call.start_ms / 1000, UTC).replace(tzinfo=None)
    model = call.model or call.model_asked
    yield "=== MLflow Record ==="
    yield "RUN IDENTIFICATION:"
    yield f"  User ID: {call.user_id or NOT_GIVEN}"
    yield f"  Audit Reason: {call.audit_reason or NOT_GIVEN}"
    yield f"  Model: {model or NOT_GIVEN}"
    yield f"  Timestamp: {started.isoformat(timespec='seconds')}"
    yield from ("", "PARAMETERS:")
    yield from _known(
        model=model,
        temperature=call.settings.get("temperature"),
        user_id=call.user_id,
        session_id=call.session_id,
        audit_reason=call.audit_reason,
        error=call.error_message,
    )
    yield from ("", "METRICS:")
    yield from _known(
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        total_tokens=call.total_tokens,
        processing_time_ms=round(call.latency_ms, 3),
        success=float(call.success),
    )


def _known(**values: object) -> Iterator[str]:
    return (f"  {name}: {value}" for name, value in values.items() if value is not None)


if __name__ == "__main__":
    try:
        show_last_5_mlflow_records()
    except FlowledgerError as exc:
        sys.exit(str(exc))
