"""Mixed calls from a seed, each with a plain record of what happened, written next to the call.

The plain records are what `counting.py` adds up. Start and duration are those of the captured call:
`record()` rounds down by a nanosecond, and live calls are timed by the clock.
"""

import random
import time
from contextlib import suppress
from typing import Any, NamedTuple

from openai import OpenAI

import flowledger
from flowledger.records import Call
from flowledger.testing import capture_calls
from flowledger.testing.llm import StubLLM

__all__ = ["CHARS", "Made", "make"]

HALF_A_DAY_S = 43_200
DAYS = 80
# US dollars for a million tokens, input and output, of the providers' own lists.
PRICES = {"gpt-4o": (2.5, 10.0), "gpt-4o-mini": (0.15, 0.6), "gpt-4.1": (2.0, 8.0)}
CHARS = "Ünïcödé, \N{GREEK SMALL LETTER ALPHA} 'quoted' \"twice\" % _"
USERS = (*(["ana"] * 5), "ben", "ben", "others", CHARS, "", None, None)
MANY = 130  # values of models, roles and error types: more than any list used to show


class Made(NamedTuple):
    """Captured calls in the order they were made, and a plain record of each by its id."""

    calls: list[Call]
    plain: list[dict[str, Any]]


def make(count: int, seed: int, live: int) -> Made:
    """Return `count` calls given to `record()`, and `live` turns through `track` and `wrap`."""
    chance = random.Random(seed)
    now_ms = time.time_ns() // 1_000_000
    written: dict[str, dict[str, Any]] = {}
    with StubLLM() as stub, capture_calls() as calls:
        client = flowledger.wrap(OpenAI(base_url=stub.url, api_key="stub", max_retries=0))
        for place in range(count):
            one = _facts(chance, place, now_ms)
            written[_record(chance, one)] = one
        for place in range(live):
            _turn(client, chance, place)
        client.close()
    plain = []
    for call in calls:
        one = written.get(call.id) or _seen(call)
        start_ms = call.start_ns // 1_000_000
        plain.append({**one, "id": call.id, "start_ms": start_ms, "ms": call.duration_ns / 1e6})
    return Made(list(calls), plain)


def _facts(chance: random.Random, place: int, now_ms: int) -> dict[str, Any]:
    """What is to happen in one call; None is a missing value, and so is an empty text."""
    failed = chance.random() < 0.25
    several = place % MANY  # each of many values comes up in any thousand calls
    model = chance.choice([*PRICES, "house-7b", f"custom-{several}", f"custom-{several}"])
    used = chance.random() < 0.85
    tokens = (chance.randrange(1, 4000), chance.randrange(1, 900)) if used else (None, None)
    given = chance.choice([None, None, round(chance.random(), 6)])
    return {
        "start": now_ms / 1000 - _age_s(chance),
        "latency": chance.choice([chance.lognormvariate(7, 1.5), chance.uniform(0.001, 0.2)]),
        "feature": chance.choice(["support", "search", CHARS, "", None]),
        "model": model if used or failed else chance.choice([model, None]),
        "provider": chance.choice(["openai", None]) if model in PRICES else "house",
        "kind": "chat",
        "operation": chance.choice(["answer", "find"]),
        "user_id": chance.choice(USERS),
        "session_id": chance.choice([f"s-{chance.randrange(40)}", "", None]),
        "persona_id": chance.choice(["helper", None]),
        "user_role": chance.choice([f"role-{several}", None, "admin"]),
        "environment": chance.choice(["production", "test", "", None]),
        "prompt_version": chance.choice(["v1", "v2", None]),
        "tag:team": chance.choice(["red", "blue", None]),
        "intent": chance.choice(["buy", "ask", None]),
        "module": chance.choice(["editor", None]),
        "confidence": chance.choice([round(chance.random(), 3), None]),
        "failed": failed,
        "error_type": f"Error{chance.randrange(2000)}" if failed else None,
        "tokens": tokens,
        "given": given,
        "cost": _cost(model, tokens, given, failed),
        "inner_calls": 0,
    } | ({} if used else {"cost": given})


def _age_s(chance: random.Random) -> float:
    """Seconds ago, half an hour at least from where a window of whole days begins or ends."""
    halves = chance.choice([0, chance.randrange(14), chance.randrange(2 * DAYS)])
    return halves * HALF_A_DAY_S + chance.uniform(2_000, HALF_A_DAY_S - 2_000)


def _cost(
    model: str, tokens: tuple[int | None, int | None], given: float | None, failed: bool
) -> float | None:
    """The cost that was given, else that of the price list; None is unknown."""
    if given is not None or model not in PRICES or tokens[0] is None or tokens[1] is None:
        return given
    into, out = PRICES[model]
    return (tokens[0] * into + tokens[1] * out) / 1e6


def _record(chance: random.Random, one: dict[str, Any]) -> str:
    tags = {"team": one["tag:team"], "detected_intent": one["intent"]}
    tags["current_module"] = one["module"]
    actor = ("user_id", "session_id", "persona_id", "user_role", "environment")
    error = None
    if one["failed"]:
        error = type(one["error_type"], (Exception,), {})("it did not work")
    return flowledger.record(
        **{name: one[name] for name in ("feature", "model", "provider", "kind", "operation")},
        **{name: one[name] for name in actor},
        experiment=chance.choice(["one", "two"]),
        input_tokens=one["tokens"][0],
        output_tokens=one["tokens"][1],
        latency_ms=one["latency"],
        started=one["start"],
        error=error,
        cost_usd=one["given"],
        prompt_version=one["prompt_version"],
        metrics={} if one["confidence"] is None else {"confidence_score": one["confidence"]},
        tags={name: value for name, value in tags.items() if value is not None},
    )


def _turn(client: OpenAI, chance: random.Random, place: int) -> None:
    """One call inside a tracked function, which fails afterwards every fourth time."""

    @flowledger.track(feature="live")
    def turn(question: str) -> str | None:
        answer = client.chat.completions.create(
            model=chance.choice(["gpt-4o-mini", "house-7b"]),
            messages=[{"role": "user", "content": question}],
        )
        if place % 4 == 3:
            raise LookupError(question)
        return answer.choices[0].message.content

    with flowledger.context(user_id=chance.choice(["ana", "ben"])), suppress(LookupError):
        turn(f"Question {place}?")


def _seen(call: Call) -> dict[str, Any]:
    """The plain record of a live call: what the stub answered is known only afterwards."""
    model = (call.model or call.model_asked) or None
    tokens = (call.usage.input_tokens, call.usage.output_tokens)
    failed = not call.outcome.success
    return {
        "feature": call.feature,
        "model": model,
        "provider": call.provider,
        "kind": str(call.kind),
        "operation": call.operation,
        "user_id": call.actor.user_id,
        "session_id": call.actor.session_id,
        "persona_id": call.actor.persona_id,
        "user_role": call.actor.user_role,
        "environment": call.actor.environment,
        "prompt_version": call.prompt_version.version or call.prompt_version.hash,
        "tag:team": None,
        "intent": None,
        "module": None,
        "confidence": None,
        "failed": failed,
        "error_type": call.outcome.error_type,
        "tokens": tokens,
        "cost": None if call.inner_calls else _cost(model or "", tokens, None, failed),
        "inner_calls": call.inner_calls,
    }
