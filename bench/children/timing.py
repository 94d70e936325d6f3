"""What the three measured applications share: the work, and how its rounds are timed."""

import random
import time
from collections.abc import Callable
from typing import Any

from bench.calls import answer, question

__all__ = ["ANSWER", "ATTRIBUTES", "LIMITS", "PROMPT", "rounds"]

PROMPT = question(random.Random(1)) + question(random.Random(2))[:200]
ANSWER = answer(random.Random(1))
# What is said of every call besides its prompt and its answer.
ATTRIBUTES: dict[str, Any] = {
    "feature": "ticket_summary",
    "operation": "summarise",
    "kind": "chat",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "user_id": "user-7",
    "session_id": "session-7-3",
    "persona_id": "analyst",
    "audit_reason": "customer support",
    "environment": "production",
}
LIMITS: dict[str, Any] = {"temperature": 0.2, "max_tokens": 400}


def rounds(
    call: Callable[[], object], drained: Callable[[], object]
) -> Callable[[int], dict[str, Any]]:
    """A command that makes so many calls, then waits until they are exported.

    It returns how long each took the caller (`took`, ns) and what processor time all of them took
    from this process, its exporting threads included (`cpu`, ns).
    """

    def timed(calls: int) -> dict[str, Any]:
        clock = time.perf_counter_ns
        before = time.process_time_ns()
        took = []
        for _ in range(calls):
            started = clock()
            call()
            took.append(clock() - started)
        drained()
        return {"took": took, "cpu": time.process_time_ns() - before}

    return timed
