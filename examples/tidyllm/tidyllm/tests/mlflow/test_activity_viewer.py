"""The tools show what was recorded, and what is missing: `python test_activity_viewer.py`."""

import io
from contextlib import redirect_stdout
from uuid import uuid4

from tidyllm.infrastructure.tools.mlflow_evidence_checker import show_missing_evidence
from tidyllm.infrastructure.tools.mlflow_viewer import show_last_5_mlflow_records
from tidyllm.services import MLflowIntegrationService

TOKENS = {"input": 10, "output": 20}


def printed_by_viewer() -> str:
    """What the viewer prints."""
    with redirect_stdout(io.StringIO()) as printed:
        show_last_5_mlflow_records()
    return printed.getvalue()


def missing_reasons() -> int:
    """How many requests the evidence checker says have no audit reason."""
    with redirect_stdout(io.StringIO()) as printed:
        show_missing_evidence()
    lines = [line for line in printed.getvalue().splitlines() if "audit_reason is missing" in line]
    return int(lines[0].split()[3].rstrip(",")) if lines else 0


def test_the_last_five_requests_are_shown_whole() -> None:
    """Five are shown, the latest of them first, with all its parts."""
    user = str(uuid4())
    for number in range(6):
        took = 60.0 - 10 * number  # so that each begins after the one before
        MLflowIntegrationService().log_llm_request(
            "custom-model", "p", "r", took, TOKENS, user_id=f"{user}-{number}", audit_reason="test"
        )
    records = printed_by_viewer().split("=== MLflow Record ===\n")[1:]
    shown = [line for record in records for line in record.splitlines() if "User ID" in line]
    assert [f"  User ID: {user}-{number}" for number in (5, 4, 3, 2, 1)] == shown
    for part in ("RUN IDENTIFICATION:", "PARAMETERS:", "METRICS:", "processing_time_ms: 10.0"):
        assert part in records[0], part


def test_a_request_without_a_reason_is_evidence_that_is_missing() -> None:
    """One more request without a reason is one more that the checker counts."""
    before = missing_reasons()
    MLflowIntegrationService().log_llm_request("custom-model", "p", "r", 7.5, TOKENS)
    assert before + 1 == missing_reasons()


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(f"ok: {name}")
