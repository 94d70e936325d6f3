"""What a chat is made of: the steps a method takes, what comes back, and the answer."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from flowledger.records import Usage

__all__ = ["Answer", "Ask", "Complete", "Message", "Reason", "Reply", "Source", "Step", "Work"]

Message: TypeAlias = dict[str, str]
ChatType: TypeAlias = Literal["direct", "dspy", "rag", "hybrid"]


class _Struct(msgspec.Struct, frozen=True, kw_only=True):
    """What all of them share."""


class Ask(_Struct, frozen=True):
    """A chat call as it was made, checked.

    `models` are asked in turn until one answers. `history` holds the turns that came before.
    """

    message: str
    chat_type: ChatType
    models: tuple[str, ...]
    temperature: float
    max_tokens: int
    session_id: str | None = None
    user_id: str | None = None
    system: str | None = None
    history: tuple[Message, ...] = ()
    remembers: bool = False
    top_k: int = 5


class Reply(_Struct, frozen=True):
    """What one model answered; `cost_usd` is None where its price is not known."""

    text: str
    reasoning: str = ""
    model: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None


class Source(_Struct, frozen=True):
    """A passage an answer may rest on, by the number it is cited by.

    `place` is the page or heading in the document. `score` orders the passages of one search;
    `similarity` is the cosine of its vector and the question's, None where words alone were used.
    """

    number: int
    source: str
    place: str
    text: str
    score: float
    similarity: float | None = None


class Answer(_Struct, frozen=True):
    """What a method made of the replies it got: `why` says why hybrid chose `method`."""

    content: str
    method: str
    reasoning: str = ""
    why: str = ""
    replies: tuple[Reply, ...] = ()
    sources: tuple[Source, ...] = ()


class Complete(_Struct, frozen=True):
    """Step: ask this model once; a `Reply` comes back, or a `ProviderError` is thrown."""

    model: str
    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    response_format: dict[str, Any] | None = None


class Reason(_Struct, frozen=True):
    """Step: have DSPy think about it with the first of the models; an `Answer` comes back.

    `plainly` asks for the answer's form in words alone, for servers that refuse a JSON schema.
    """

    ask: Ask
    plainly: bool = False


class Work(_Struct, frozen=True):
    """Step: run this, which may wait for a file, a database or a provider of vectors."""

    run: Callable[[], Any]


Step: TypeAlias = Complete | Reason | Work
