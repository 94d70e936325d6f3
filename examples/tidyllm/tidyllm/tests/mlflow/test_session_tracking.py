"""Each chat is recorded with who asked and why: `python test_session_tracking.py`."""

from typing import TYPE_CHECKING
from uuid import uuid4

import tidyllm
from flowledger.questions import Filters, StoredCall
from tidyllm.services import MLflowIntegrationService

if TYPE_CHECKING:
    from flowledger.chat.steps import ChatType

MODES: "tuple[ChatType, ...]" = ("direct", "dspy", "rag", "hybrid")


def stored(session_id: str) -> list[StoredCall]:
    """The recorded requests of a session, the latest first."""
    ledger = MLflowIntegrationService().ledger()
    runs = ledger.over(filters=Filters(session_id=session_id)).runs()
    return [ledger.call(run.id) for run in runs]


def test_every_mode_is_recorded_with_user_session_and_reason() -> None:
    """Whichever mode answers, the request that asked a model says for whom and why."""
    for mode in MODES:
        session_id = str(uuid4())
        tidyllm.chat(
            "Explain what is in our docs about returns",
            chat_type=mode,
            user_id="test_user",
            session_id=session_id,
            audit_reason=f"test_{mode}",
        )
        asked = [call for call in stored(session_id) if call.model]
        assert asked, mode
        for call in asked:
            assert ("test_user", f"test_{mode}") == (call.user_id, call.audit_reason)
            assert call.input_tokens, mode
            assert call.output_tokens, mode


def test_the_audit_trail_is_what_was_recorded() -> None:
    """What the caller is told and what the record says are the same."""
    session_id = str(uuid4())
    told = tidyllm.chat("Hello", reasoning=True, user_id="test_user", session_id=session_id)
    [call] = stored(session_id)
    assert told["audit_trail"]["model_id"] == call.model
    assert told["token_usage"]["input"] == call.input_tokens
    assert told["token_usage"]["total"] == call.total_tokens
    assert told["audit_trail"]["success"]
    assert call.success


def test_a_request_logged_by_hand_is_recorded_as_it_was() -> None:
    """What `log_llm_request` is given is in the record under the id it returned."""
    service = MLflowIntegrationService()
    run_id = service.log_llm_request(
        model="custom-model",
        prompt="test prompt",
        response="test response",
        processing_time=150.0,
        token_usage={"input": 10, "output": 20, "total": 30},
        user_id="test_user",
        audit_reason="test_manual",
    )
    assert run_id, service.problem
    call = service.ledger().call(run_id)
    assert ("custom-model", 10, 20, 30) == (
        call.model_asked,
        call.input_tokens,
        call.output_tokens,
        call.total_tokens,
    )
    assert (150.0, "test_manual") == (call.latency_ms, call.audit_reason)


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(f"ok: {name}")
