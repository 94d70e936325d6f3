"""Weeks before the replay: the same arrivals again, written down as having happened.

So the pages have something to show on the first day: a month and the one before it, with weekends,
versions of prompts, a model that takes the place of another.
"""

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flowledger
from flowledger.cli.playback.application import ENVIRONMENT
from flowledger.cli.playback.arrivals import Arrival, arrivals_in
from flowledger.cli.playback.scenario import Request, request_for
from flowledger.records import Kind

__all__ = ["LONGEST", "write_history"]

LONGEST = 365
DAY = 86_400.0
MOST_A_DAY, LEAST_A_DAY = 180, 100
WEEKEND = 0.35
# Most of the day's calls come around this hour, in UTC.
NOON, SPREAD = 13.0, 3.5
FIRST_TOKEN_MS, MS_PER_TOKEN = 350.0, 9.0
DAYS_A_VERSION, VERSIONS = 12, 3
BEFORE = {"gpt-4.1-mini": "gpt-3.5-turbo"}
SWITCHED = 0.5  # of the time, that model was asked instead
SCORED = "intent_detection"
INTENTS = ("cancel", "availability", "trouble")


class RateLimitError(Exception):
    """The provider took no more requests."""


class InternalServerError(Exception):
    """The provider failed."""


class AuthenticationError(Exception):
    """The provider did not take the key."""


ERRORS = {429: RateLimitError, 500: InternalServerError, 401: AuthenticationError}


def write_history(path: Path, days: int) -> int:
    """Record the arrivals of a trace as calls of the days before today; how many.

    Args:
        path: of the trace.
        days: how many, none of them today.
    """
    arrivals = list(arrivals_in(path))
    midnight = time.time() // DAY * DAY
    made = 0
    for ago in range(days, 0, -1):
        chance = random.Random(ago)
        for started in sorted(_moments(chance, midnight - ago * DAY, ago / days)):
            _record(chance, arrivals, made, started, ago / days)
            made += 1
    return made


def _moments(chance: random.Random, day: float, back: float) -> Iterator[float]:
    """When calls began that day: more of them lately, few on a weekend."""
    calls = MOST_A_DAY - (MOST_A_DAY - LEAST_A_DAY) * back
    if time.gmtime(day).tm_wday >= 5:
        calls *= WEEKEND
    for _ in range(round(calls * chance.uniform(0.85, 1.15))):
        hour = min(23.9, max(0.0, chance.gauss(NOON, SPREAD)))
        yield day + hour * 3600


def _record(
    chance: random.Random, arrivals: Sequence[Arrival], number: int, started: float, back: float
) -> None:
    arrival = arrivals[number % len(arrivals)]
    request = request_for(Arrival(number, started, 0, arrival.generated_tokens))
    feature = request.feature
    error = ERRORS.get(request.status or 0)
    usage = {"input_tokens": max(1, arrival.context_tokens)}
    if feature.way != "embed":
        usage["output_tokens"] = request.answer_tokens
    first_ms = FIRST_TOKEN_MS * chance.lognormvariate(0, 0.4)
    flowledger.record(
        operation="embeddings" if feature.way == "embed" else "chat.completions",
        feature=feature.name,
        kind=Kind.EMBEDDING if feature.way == "embed" else Kind.CHAT,
        provider="openai",
        model=BEFORE.get(feature.model, feature.model) if back > SWITCHED else feature.model,
        prompt=[
            {"role": "system", "content": feature.system},
            {"role": "user", "content": request.question},
        ],
        response=None if error else "(an answer of the days before, which nobody kept)",
        usage=None if error else usage,
        latency_ms=first_ms + MS_PER_TOKEN * usage.get("output_tokens", 0),
        time_to_first_token_ms=first_ms if feature.way == "stream" else None,
        started=started,
        error=error(f"Error code: {request.status}") if error else None,
        settings={"temperature": feature.temperature},
        prompt_name=f"{feature.name}_system",
        prompt_version=str(max(1, VERSIONS - int(back * 30 / DAYS_A_VERSION))),
        **_scores(chance, request),
        user_id=request.user_id,
        user_role=request.user_role,
        session_id=request.session_id,
        persona_id=feature.persona,
        audit_reason=feature.audit_reason,
        environment=ENVIRONMENT,
    )


def _scores(chance: random.Random, request: Request) -> dict[str, Any]:
    """What the application says of an answer of its own, where it says anything."""
    if request.feature.name != SCORED or request.status is not None:
        return {}
    return {
        "metrics": {"confidence_score": round(chance.betavariate(12, 2), 3)},
        "tags": {"detected_intent": chance.choice(INTENTS)},
    }
