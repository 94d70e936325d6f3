"""Fills a database through our bulk sink, without journals."""

import itertools
import time

import msgspec

from bench.calls import make_calls
from bench.processes import argument, serve
from flowledger.config import Destination
from flowledger.records import Call, Prompt, encode
from flowledger.store import open_sink

BATCH_CALLS = 1200
INTENTS = ("create_workflow", "run_agent", "search", "chat", "summarise", "translate")
GIVEN = argument()


def fill(calls: int, days: float, store_as: str = "run+trace", scored: bool = False) -> float:
    """Seconds that the sink took for so many calls, with scores and circumstances if wanted."""
    sink = open_sink(
        Destination(
            tracking_uri=GIVEN["uri"], artifact_root=GIVEN["artifact_root"], store_as=store_as
        )
    )
    made = make_calls(calls, days=days)
    payloads = map(encode, map(_scored, made) if scored else made)
    seconds = 0.0
    while batch := list(itertools.islice(payloads, BATCH_CALLS)):
        started = time.perf_counter()
        sink.write(batch)
        seconds += time.perf_counter() - started
    sink.close()
    return seconds


def _scored(call: Call) -> Call:
    """As an intent detector records it."""
    place = call.seq
    return msgspec.structs.replace(
        call,
        prompt_version=Prompt(version=f"v{place % 5}"),
        metrics={"confidence_score": place % 100 / 100, "template_match_rate": place % 2},
        tags={
            "detected_intent": INTENTS[place % len(INTENTS)],
            "current_module": f"module-{place % 7}",
            "user_role": "admin" if place % 9 == 0 else "user",
            "dspy_version": "3.4.1",
        },
    )


serve(fill=fill)
