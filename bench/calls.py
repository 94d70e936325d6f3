"""Realistic calls: 1.7 kB records of chats, four features, ten users, three personas."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

from flowledger.journal import Writer
from flowledger.records import Actor, Call, Kind, Outcome, Producer, Usage, encode, new_id

__all__ = ["FEATURES", "answer", "make_calls", "question", "write_journals"]

FEATURES = ("ticket_summary", "intent_detection", "article_comment", "contract_review")
PERSONAS = ("analyst", "support", "editor")
MODELS = (("openai", "gpt-4o-mini"), ("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"))
USERS = 10
SESSION_CALLS = 20
FAILING = 0.03
QUESTION_BYTES = 580
ANSWER_BYTES = 430
MOST_BYTES = 1 << 40
WORDS = str.split(
    "the customer order invoice shipment delay refund request contract clause renewal please "
    "summarise classify explain review important \u201cquoted\u201d caf\u00e9 account payment "
    "because therefore however within between policy version update error message login"
)


def question(chance: random.Random) -> str:
    """A prompt of some 580 bytes."""
    return _prose(chance, QUESTION_BYTES)


def answer(chance: random.Random) -> str:
    """An answer of some 430 bytes."""
    return _prose(chance, ANSWER_BYTES)


def make_calls(count: int, *, days: float = 0.1, seed: int = 2) -> Iterator[Call]:
    """Calls spread evenly over the last days, oldest first, the same for the same seed.

    Args:
        count: how many.
        days: how long ago the first one was.
        seed: of everything but the clock.
    """
    chance = random.Random(seed)
    now, span = time.time_ns(), int(days * 86_400e9)
    producer = f"{seed:032x}"
    for number in range(count):
        start_ns = now - span + span * number // count
        yield _call(chance, number, start_ns, producer)


def write_journals(folder: Path, calls: Iterator[Call]) -> None:
    """Journals that hold these calls, as a process that has left would leave them."""
    producer = Producer(id=new_id(), host="bench", pid=1, source="bench")
    writer = Writer(
        folder, producer_id=producer.id, producer=encode(producer), max_bytes=MOST_BYTES
    )
    for call in calls:
        writer.append(call.seq, encode(call))
    writer.close()
    if writer.dropped:
        raise OSError(f"the journal in {folder} does not take calls")


def _call(chance: random.Random, number: int, start_ns: int, producer: str) -> Call:
    user = chance.randrange(USERS)
    provider, model = MODELS[number % len(MODELS)]
    failed = chance.random() < FAILING
    return Call(
        id=_id(start_ns // 1_000_000, number, chance),
        producer=producer,
        seq=number + 1,
        start_ns=start_ns,
        duration_ns=chance.randrange(200_000_000, 4_000_000_000),
        first_token_ns=chance.randrange(50_000_000, 200_000_000),
        operation="answer",
        feature=FEATURES[number % len(FEATURES)],
        function="application.assistant.answer",
        experiment=FEATURES[number % len(FEATURES)],
        kind=Kind.CHAT.value,
        provider=provider,
        model_asked=model,
        model=None if failed else model,
        settings={"temperature": 0.2, "max_tokens": 400},
        prompt=[
            {"role": "system", "content": "You are a careful assistant. Answer in two sentences."},
            {"role": "user", "content": question(chance)},
        ],
        response=None if failed else answer(chance),
        actor=Actor(
            user_id=f"user-{user}",
            session_id=f"session-{user}-{number // (USERS * SESSION_CALLS)}",
            persona_id=PERSONAS[user % len(PERSONAS)],
            audit_reason="customer support",
            environment="production",
        ),
        usage=Usage() if failed else _usage(chance),
        outcome=_timeout() if failed else Outcome(),
    )


def _usage(chance: random.Random) -> Usage:
    return Usage(
        input_tokens=chance.randrange(80, 900),
        output_tokens=chance.randrange(20, 400),
        cached_input_tokens=chance.choice((0, 64)),
    )


def _timeout() -> Outcome:
    stack = "".join(f'  File "application/layer{n}.py", line {n}, in ask\n' for n in range(12))
    return Outcome(
        success=False, error_type="APITimeoutError", message="Request timed out.", stack=stack
    )


def _prose(chance: random.Random, length: int) -> str:
    words = chance.choices(WORDS, k=length // 6)
    return " ".join(words)[:length]


def _id(ms: int, number: int, chance: random.Random) -> str:
    """A UUIDv7 made at that millisecond, in the order of the calls."""
    return f"{ms:012x}7{number & 0xFFF:03x}{0x8000 | chance.getrandbits(14):04x}" + (
        f"{chance.getrandbits(48):012x}"
    )
