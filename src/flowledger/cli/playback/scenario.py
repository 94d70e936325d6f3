"""What each arrival asks, for whom and why: the same for the same arrival, every time."""

import random
from typing import NamedTuple

from flowledger.cli.playback.arrivals import Arrival
from flowledger.testing.stub.answers import prose
from flowledger.tokens import count

__all__ = ["FEATURES", "Feature", "Request", "request_for"]

MOST_CONTEXT = 1_500
MOST_GENERATED = 2_000
SESSION_SECONDS = 60.0
# What a chat costs in tokens besides its two texts; OpenAI's cookbook, "How to count tokens".
CHAT_TOKENS = 11
COUNTED_AS = "gpt-4o"


class Feature(NamedTuple):
    """A part of the application: which model it asks, in whose voice, and what for.

    `weight` is its share of the arrivals. `way` is how it calls the client: `tracked` inside a
    tracked function, `plain`, `stream`, or `embed`.
    """

    name: str
    weight: int
    way: str
    model: str
    persona: str
    audit_reason: str
    system: str
    questions: tuple[str, ...]
    temperature: float = 0.2


FEATURES = (
    Feature(
        name="support",
        weight=30,
        way="tracked",
        model="gpt-4o-mini",
        persona="helper",
        audit_reason="customer_request",
        system="You answer customers of an online shop, kindly and in few words.",
        questions=(
            "Where is my order?",
            "How do I send this back?",
            "The invoice names the wrong company. Can you change it?",
        ),
    ),
    Feature(
        name="assistant",
        weight=9,  # each chunk of a stream costs the client some 0.1 ms
        way="stream",
        model="gpt-4o",
        persona="analyst",
        audit_reason="business_query",
        system="You are an assistant of the finance team. Give the number first.",
        questions=("What changed since last month?", "Which region grew the most?"),
        temperature=0.7,
    ),
    Feature(
        name="document_search",
        weight=20,
        way="tracked",
        model="gpt-4o",
        persona="researcher",
        audit_reason="contract_review",
        system="Answer from the passages only, and name the passage.",
        questions=("When does the contract end?", "Who may sign for the supplier?"),
    ),
    Feature(
        name="intent_detection",
        weight=15,
        way="plain",
        model="gpt-4.1-mini",
        persona="router",
        audit_reason="routing",
        system="Say which of the intents fits the message, and why.",
        questions=("I want to cancel.", "Is this in stock?", "Your app does not open."),
        temperature=0.0,
    ),
    Feature(
        name="report_summaries",
        weight=14,
        way="plain",
        model="gpt-4.1",
        persona="editor",
        audit_reason="weekly_report",
        system="Sum up the report in five points.",
        questions=("Sum this up for the board.",),
    ),
    Feature(
        name="indexing",
        weight=7,
        way="embed",
        model="text-embedding-3-small",
        persona="librarian",
        audit_reason="index_update",
        system="",
        questions=("Passage of a manual.",),
    ),
    Feature(
        name="translation",
        weight=5,
        way="plain",
        model="house-translator-7b",  # nobody knows its price: its cost is unknown, not 0
        persona="translator",
        audit_reason="localisation",
        system="Translate into German.",
        questions=("Translate this page.",),
    ),
)
USERS = ("ana", "ben", "chloe", "daniel", "emma", "farid", "grace", "hugo", "ines", "jonas")
ROLES = ("agent", "manager", "customer")
# Every so many arrivals one fails, so that there is something to look at.
FAILING = ((29, 429), (67, 500), (101, 401))


class Request(NamedTuple):
    """One arrival as the application gets it; `status` is the error it meets at the stub."""

    feature: Feature
    user_id: str
    user_role: str
    session_id: str
    question: str
    padding: str
    answer_tokens: int
    status: int | None


def request_for(arrival: Arrival) -> Request:
    """What this arrival asks: about as many tokens as the trace says, 1,500 at most."""
    chance = random.Random(arrival.number)
    feature = chance.choices(FEATURES, [feature.weight for feature in FEATURES])[0]
    user = chance.choice(USERS)
    question = chance.choice(feature.questions)
    return Request(
        feature=feature,
        user_id=user,
        user_role=ROLES[USERS.index(user) % len(ROLES)],
        session_id=f"{user}-{int(max(0.0, arrival.at) // SESSION_SECONDS) + 1}",
        question=question,
        padding=_padding(arrival, f"{feature.system} {question}"),
        answer_tokens=max(1, min(arrival.generated_tokens, MOST_GENERATED)),
        status=_status(arrival.number),
    )


def _padding(arrival: Arrival, said: str) -> str:
    """Text that makes the prompt as long as the trace says."""
    wanted = min(arrival.context_tokens, MOST_CONTEXT)
    return prose(arrival.number, max(0, wanted - CHAT_TOKENS - count(said, COUNTED_AS)[0]))


def _status(number: int) -> int | None:
    failing = (status for every, status in FAILING if number % every == every // 2)
    return next(failing, None)
