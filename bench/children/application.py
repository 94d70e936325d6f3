"""An application that records calls, fast or at a steady pace."""

import os
import time
from pathlib import Path

import flowledger
from bench.calls import make_calls
from bench.children.timing import ANSWER, ATTRIBUTES, LIMITS, PROMPT
from bench.processes import serve

WHO = ("user_id", "session_id", "persona_id", "audit_reason", "environment")


@flowledger.track(feature="ticket_summary", kind="chat", provider="openai", model="gpt-4o-mini")
def ask(prompt: str, temperature: float, max_tokens: int) -> str:
    """What is tracked."""
    return ANSWER


def resident_bytes() -> int:
    """The memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def track(calls: int) -> int:
    """Make tracked calls as fast as they go; returns the memory afterwards."""
    with flowledger.context(**{name: ATTRIBUTES[name] for name in WHO}):
        for _ in range(calls):
            ask(PROMPT, **LIMITS)
    return resident_bytes()


def record(seconds: float, per_second: int) -> list[tuple[str, float]]:
    """Record calls at a steady pace; returns each one's id and when `record` returned."""
    calls = list(make_calls(int(seconds * per_second)))
    started = time.time()
    returned = []
    for number, call in enumerate(calls):
        time.sleep(max(0.0, started + number / per_second - time.time()))
        run_id = flowledger.record(
            operation=call.operation,
            feature=call.feature,
            kind=call.kind,
            model=call.model_asked,
            provider=call.provider,
            prompt=call.prompt,
            response=call.response,
            usage=call.usage,
            settings=call.settings,
            latency_ms=call.duration_ns / 1e6,
            user_id=call.actor.user_id,
            session_id=call.actor.session_id,
            persona_id=call.actor.persona_id,
        )
        returned.append((run_id, time.time()))
    return returned


def flush(seconds: float) -> bool:
    """Wait until the store has everything."""
    return flowledger.flush(seconds)


serve(resident_bytes=resident_bytes, track=track, record=record, flush=flush)
