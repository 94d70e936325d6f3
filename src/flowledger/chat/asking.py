"""`chat` and `achat`: one question, answered in one of four ways, recorded and audited."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from typing import Any

from flowledger.capture import recorder
from flowledger.chat.checks import checked
from flowledger.chat.methods import METHODS
from flowledger.chat.running import Method, Runner
from flowledger.chat.sessions import remembered
from flowledger.chat.steps import ChatType, Message
from flowledger.chat.talk import Talk
from flowledger.errors import ChatError, ChatInputError, DocumentError

__all__ = ["AsyncChatStream", "ChatStream", "achat", "chat"]


def chat(
    message: str,
    chat_type: ChatType = "direct",
    model: str | None = None,
    temperature: float = 0.7,
    max_tokens: int = 4000,
    reasoning: bool = False,
    stream: bool = False,
    user_id: object = None,
    session_id: object = None,
    audit_reason: object = None,
    persona_id: object = None,
    history: bool | Sequence[Message] | None = None,
    *,
    system: str | None = None,
    fallbacks: Sequence[str] | None = None,
    top_k: int = 5,
    feature: str | None = None,
) -> Any:
    """Ask a model, and have the call recorded with who asked and why.

    With `reasoning=False` the answer's text comes back, and what goes wrong is raised. With
    `reasoning=True` a dictionary comes back: `content`, `reasoning`, `method`, `sources`,
    `audit_trail`, `token_usage` and `cost_usd`; what goes wrong at a provider or with documents
    stands in `audit_trail` as `success` and `error`. With `stream=True` a `ChatStream` comes back:
    pieces of text, and the dictionary as its `result` in the end.

    Args:
        message: the question, of less than a million characters.
        chat_type: `direct`, `dspy`, `rag` or `hybrid`, which chooses among the three.
        model: by its provider's prefix, as `openai/gpt-4o`; default the setting `chat_model`.
        temperature, max_tokens: for the model.
        reasoning: return the dictionary.
        stream: return the answer piece by piece.
        user_id, session_id, audit_reason, persona_id: who asks and why, where the context does
            not say.
        history: True finds the earlier turns of this `session_id`; or the messages themselves.
        system: instructions to the model.
        fallbacks: models to ask in turn when this one fails; default the setting.
        top_k: how many passages rag looks up.
        feature: the feature of the recorded calls, default the context's, else `chat`.

    Raises:
        ChatInputError: an argument cannot be used; whatever `reasoning` says.
        ChatError, DocumentError: the provider failed or there are no documents, unless `reasoning`.
        ConfigError: a setting is wrong, or a package is missing.
    """
    pieces = ChatStream(_Chat(locals()))
    if stream:
        return pieces
    for _ in pieces:
        pass
    return _returned(pieces.result, reasoning)


async def achat(
    message: str,
    chat_type: ChatType = "direct",
    model: str | None = None,
    temperature: float = 0.7,
    max_tokens: int = 4000,
    reasoning: bool = False,
    stream: bool = False,
    user_id: object = None,
    session_id: object = None,
    audit_reason: object = None,
    persona_id: object = None,
    history: bool | Sequence[Message] | None = None,
    *,
    system: str | None = None,
    fallbacks: Sequence[str] | None = None,
    top_k: int = 5,
    feature: str | None = None,
) -> Any:
    """Do what `chat` does without blocking the event loop.

    With `stream=True` an `AsyncChatStream` comes back.

    Args:
        message, chat_type, model, temperature, max_tokens, reasoning, stream, user_id, session_id,
            audit_reason, persona_id, history, system, fallbacks, top_k, feature: as for `chat`.

    Raises:
        ChatError, DocumentError, ConfigError: as `chat` does.
    """
    pieces = AsyncChatStream(_Chat(locals()))
    if stream:
        return pieces
    async for _ in pieces:
        pass
    return _returned(pieces.result, reasoning)


def _returned(result: dict[str, Any] | None, reasoning: bool) -> Any:
    assert result is not None, "a chat that ends without raising has a result"
    return result if reasoning else result["content"]


class ChatStream:
    """The pieces of an answer, as they come; `result` is the dictionary once they have ended."""

    def __init__(self, chat: "_Chat") -> None:
        self._chat = chat
        self._pieces = chat.pieces()

    @property
    def result(self) -> dict[str, Any] | None:
        """What `chat(reasoning=True)` returns; None before the end."""
        return self._chat.result

    def __iter__(self) -> Iterator[str]:
        """The pieces, once."""
        return self._pieces

    def __next__(self) -> str:
        """The next piece."""
        return next(self._pieces)

    def close(self) -> None:
        """Want no more of it."""
        self._pieces.close()


class AsyncChatStream:
    """The same in an event loop."""

    def __init__(self, chat: "_Chat") -> None:
        self._chat = chat
        self._pieces = chat.pieces_async()

    @property
    def result(self) -> dict[str, Any] | None:
        """What `achat(reasoning=True)` returns; None before the end."""
        return self._chat.result

    def __aiter__(self) -> AsyncIterator[str]:
        """The pieces, once."""
        return self._pieces

    async def __anext__(self) -> str:
        """The next piece."""
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """Want no more of it."""
        await self._pieces.aclose()


class _Chat:
    """One call of `chat` or `achat`; refuses at once what cannot be asked."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self._talk = Talk(asked)
        self._got: list[str] = []
        self.result: dict[str, Any] | None = None
        try:
            settings = recorder.settings()
            self._ask = checked(asked, settings, self._talk.actor.session_id)
        except Exception as exc:
            self._talk.failed(exc)
            raise
        self._talk.model = self._ask.models[0]
        self._talk.grouped = self._ask.chat_type != "direct" or len(self._ask.models) > 1
        self._runner = Runner(settings, self._talk, stream=bool(asked["stream"]))

    def pieces(self) -> Generator[str, None, None]:
        try:
            for piece in self._runner.run(self._method()):
                self._got.append(piece)
                yield piece
            yield from self._rest()
        except GeneratorExit:
            self._talk.left(self._got)
            raise
        except BaseException as exc:
            if self._is_raised(exc):
                raise

    async def pieces_async(self) -> AsyncGenerator[str, None]:
        try:
            async for piece in self._runner.run_async(self._method()):
                self._got.append(piece)
                yield piece
            for piece in self._rest():
                yield piece
        except GeneratorExit:
            self._talk.left(self._got)
            raise
        except BaseException as exc:
            if self._is_raised(exc):
                raise

    def _method(self) -> Method:
        return remembered(self._ask, self._talk, METHODS[self._ask.chat_type])

    def _rest(self) -> list[str]:
        """It worked: what of the answer did not come in pieces."""
        answer = self._runner.answer
        assert answer is not None, "a method that ends without raising has an answer"
        self.result = self._talk.succeeded(answer, self._ask)
        return [] if self._got else [answer.content]

    def _is_raised(self, exc: BaseException) -> bool:
        """It failed: whether the caller sees the exception, or reads of it in the dictionary."""
        self.result = self._talk.failed(exc)
        told = isinstance(exc, ChatError | DocumentError) and not isinstance(exc, ChatInputError)
        return not (told and self._asked["reasoning"])
