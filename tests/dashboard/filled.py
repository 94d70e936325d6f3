"""A ledger to look at: the Azure trace's arrivals, as the demo's application would ask them.

Spread over weeks with the rhythm of days, so that every window has something in it. What nobody
would want in a picture, but somebody may send, lies further back.
"""

import random
import time
from collections.abc import Iterator

import msgspec

from flowledger.cli.playback.arrivals import SAMPLE, Arrival, arrivals_in
from flowledger.cli.playback.scenario import Request, request_for
from flowledger.config import Destination
from flowledger.records import Actor, Call, Kind, Outcome, Prompt, ToolCall, Usage, encode, new_id
from flowledger.store import open_sink
from flowledger.testing.stub.answers import prose
from tests.calls import a_call

__all__ = ["DAYS", "FORMULA", "SCRIPT", "TOOLED", "fill", "id_at"]

DAY_NS = 86_400 * 10**9
DAYS = 44
LONG_AGO_DAYS = 80
ROUNDS = 6
SCRIPT = "<script>document.title='taken'</script>"
FORMULA = "=cmd()"
TOOLED = "tool-session"
ERRORS = {
    429: ("RateLimitError", "Rate limit reached for requests. Please try again later."),
    500: ("InternalServerError", "The server had an error while processing your request."),
    401: ("AuthenticationError", "Incorrect API key provided."),
}
STACK = 'Traceback (most recent call last):\n  File "app/support.py", line 31, in answer\n'


def fill(uri: str, rounds: int = ROUNDS) -> list[Call]:
    """Store all calls, as runs with traces; returns them."""
    made = [*_everyday(rounds), *_odd(), *_with_tools()]
    sink = open_sink(
        Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as="run+trace")
    )
    assert [] == sink.write([encode(call) for call in made])
    sink.close()
    return made


def id_at(start_ns: int) -> str:
    """An id as it would have been made then."""
    return f"{start_ns // 10**6:012x}{new_id()[12:]}"


def _everyday(rounds: int) -> Iterator[Call]:
    chance = random.Random(5)
    arrivals = list(arrivals_in(SAMPLE))
    now_ns = time.time_ns()
    for number in range(rounds * len(arrivals)):
        arrival = arrivals[number % len(arrivals)]._replace(number=number)
        ago = DAYS * chance.random() ** 1.25
        start_ns = now_ns - int(ago * DAY_NS) - 10**9
        yield from _calls(arrival, start_ns, number, chance)


def _calls(arrival: Arrival, start_ns: int, number: int, chance: random.Random) -> Iterator[Call]:
    """The call of an arrival, and the function around it where its feature has one."""
    request = request_for(arrival)
    tracked = request.feature.way == "tracked"
    inner = _call(request, arrival, start_ns, 2 * number + 1, chance)
    if not tracked:
        yield inner
        return
    around = a_call(
        id=id_at(start_ns - 2_000_000),
        seq=2 * number + 2,
        start_ns=start_ns - 2_000_000,
        duration_ns=inner.duration_ns + 5_000_000,
        operation="answer_from_history",
        feature=request.feature.name,
        experiment=request.feature.name,
        kind=Kind.CUSTOM,
        provider=None,
        model=None,
        model_asked=None,
        prompt={"question": request.question},
        response=inner.response,
        actor=inner.actor,
        usage=Usage(),
        outcome=inner.outcome,
        inner_calls=1,
    )
    yield around
    yield msgspec.structs.replace(inner, parent_id=around.id)


def _call(
    request: Request, arrival: Arrival, start_ns: int, seq: int, chance: random.Random
) -> Call:
    feature, failed = request.feature, request.status is not None
    took_ms = chance.lognormvariate(5.6, 0.5) + 9 * arrival.generated_tokens * chance.uniform(
        0.7, 1.2
    )
    error = ERRORS.get(request.status or 0)
    embeds = feature.way == "embed"
    asked = f"{request.question} {request.padding}"
    return a_call(
        id=id_at(start_ns),
        seq=seq,
        start_ns=start_ns,
        duration_ns=int((80 if failed else took_ms) * 1e6),
        first_token_ns=int(took_ms * 0.2e6) if feature.way == "stream" and not failed else None,
        operation="embeddings" if embeds else "chat.completions",
        feature=feature.name,
        experiment=feature.name,
        kind=Kind.EMBEDDING if embeds else Kind.CHAT,
        provider="openai",
        model=None if failed else feature.model,
        model_asked=feature.model,
        settings={"temperature": feature.temperature},
        prompt=[
            {"role": "system", "content": feature.system},
            {"role": "user", "content": asked},
        ],
        response=None if failed or embeds else prose(arrival.number, request.answer_tokens),
        actor=Actor(
            user_id=request.user_id,
            session_id=f"{request.session_id}-{arrival.number % 60}",
            persona_id=feature.persona,
            user_role=request.user_role,
            audit_reason=feature.audit_reason,
            environment="production",
        ),
        usage=Usage()
        if failed
        else Usage(
            input_tokens=min(arrival.context_tokens, 1500),
            output_tokens=0 if embeds else request.answer_tokens,
        ),
        outcome=Outcome()
        if error is None
        else Outcome(success=False, error_type=error[0], message=error[1], stack=STACK + error[0]),
        prompt_version=Prompt(
            name=f"{feature.name}_system",
            version="2" if start_ns < time.time_ns() - 12 * DAY_NS else "3",
        ),
        metrics={} if failed else {"confidence_score": round(chance.uniform(0.6, 0.99), 3)},
    )


def _odd() -> Iterator[Call]:
    """Texts that would do harm where they are taken for anything but text."""
    start_ns = time.time_ns() - LONG_AGO_DAYS * DAY_NS
    for number, text in enumerate((SCRIPT, FORMULA)):
        yield a_call(
            id=id_at(start_ns + number),
            seq=100_000 + number,
            start_ns=start_ns + number * 10**6,
            prompt=[{"role": "user", "content": text}],
            response=text,
            model=text,
            model_asked=text,
            operation=text,
            feature=text,
            experiment="odd",
            actor=Actor(user_id=text, session_id=text),
            tags={"team": text},
            outcome=Outcome(success=False, error_type=text, message=text, stack=text),
        )


def _with_tools() -> Iterator[Call]:
    start_ns = time.time_ns() - 2 * DAY_NS
    yield a_call(
        id=id_at(start_ns),
        seq=200_000,
        start_ns=start_ns,
        first_token_ns=30_000_000,
        response=None,
        actor=Actor(user_id="ana", session_id=TOOLED, audit_reason="customer_request"),
        tool_calls=[
            ToolCall(name="find_order", id="1", arguments='{"number": 7}', result="shipped"),
            ToolCall(name="write_mail", id="2", arguments='{"to": "ana"}'),
        ],
    )
