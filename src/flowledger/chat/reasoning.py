"""DSPy's ChainOfThought over the providers of this chat.

DSPy is given an engine that asks through our own recorded clients, so its one call of the model is
recorded with its usage, retried and priced like any other.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from flowledger.asynchronous import reraise_asynchronous
from flowledger.chat.steps import Answer, Ask, Complete, Message, Reason, Reply
from flowledger.errors import ChatError, ConfigError, ProviderError

if TYPE_CHECKING:
    from dspy import LM

__all__ = ["areason", "reason"]

QUESTION = "question -> answer"
WITH_HISTORY = "conversation, question -> answer"
TEXT = {"type": "string"}
FORM = {
    "type": "json_schema",
    "json_schema": {
        "name": "reasoned_answer",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"reasoning": TEXT, "answer": TEXT},
            "required": ["reasoning", "answer"],
            "additionalProperties": False,
        },
    },
}


def reason(step: Reason, complete: Callable[[Complete], Reply]) -> Answer:
    """What ChainOfThought makes of the message.

    Args:
        step: asks one model.
        complete: asks a model once.

    Raises:
        ProviderError: the model failed, or its answer does not have the form it was asked for.
        ConfigError: dspy is not installed.
    """
    dspy, ask = _dspy(), step.ask
    engine = _Engine(step, complete)
    with dspy.context(lm=_lm(dspy, ask, engine, None), adapter=dspy.JSONAdapter()):
        try:
            found = _program(dspy, ask)(**_inputs(ask))
        except Exception as exc:
            raise engine.failure(exc) from exc
    return _answer(found, engine)


async def areason(step: Reason, complete: Callable[[Complete], Awaitable[Reply]]) -> Answer:
    """The same without blocking the event loop."""
    dspy, ask = _dspy(), step.ask
    engine = _AsyncEngine(step, complete)
    lm = _lm(dspy, ask, _Engine(step, _never), engine)
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        try:
            found = await _program(dspy, ask).acall(**_inputs(ask))
        except Exception as exc:
            raise engine.failure(exc) from exc
    return _answer(found, engine)


def _dspy() -> Any:
    try:
        import dspy
    except ImportError as exc:
        raise ConfigError(
            "dspy is not installed, and chat_type='dspy' needs it: pip install 'flowledger[dspy]'"
        ) from exc
    return dspy


def _lm(dspy: Any, ask: Ask, engine: Any, async_engine: Any) -> "LM":
    """The engine knows temperature and limit itself; DSPy's retries would come on top of ours."""
    name = f"openai/{ask.models[0].rpartition('/')[2]}"
    lm: LM = dspy.LM(name, engine=engine, async_engine=async_engine, cache=False, num_retries=0)
    return lm


def _program(dspy: Any, ask: Ask) -> Any:
    signature = dspy.Signature(WITH_HISTORY if ask.history else QUESTION)
    return dspy.ChainOfThought(signature.with_instructions(ask.system) if ask.system else signature)


def _inputs(ask: Ask) -> dict[str, str]:
    said = "\n".join(f"{message['role']}: {message['content']}" for message in ask.history)
    return {"question": ask.message, **({"conversation": said} if said else {})}


def _answer(found: Any, engine: "_Base") -> Answer:
    return Answer(
        content=str(found.answer),
        reasoning=str(found.reasoning),
        method="dspy",
        replies=tuple(engine.replies),
    )


class _Base:
    """What both engines share: one canonical request becomes a step, a reply its response."""

    def __init__(self, step: Reason) -> None:
        self._ask = step.ask
        self._ask_plainly = step.plainly
        self._error: ChatError | None = None
        self.replies: list[Reply] = []

    def failure(self, exc: Exception) -> ChatError:
        """What went wrong: the provider's own error, or that DSPy could not read the answer."""
        reraise_asynchronous(exc)
        told = " ".join(str(exc).split())[:500]
        return self._error or ProviderError(f"dspy cannot use the answer: {told}")

    def _step(self, request: Any) -> Complete:
        return Complete(
            model=self._ask.models[0],
            messages=tuple(_messages(request)),
            temperature=self._ask.temperature,
            max_tokens=self._ask.max_tokens,
            response_format=None if self._ask_plainly else FORM,
        )

    def _response(self, reply: Reply) -> Any:
        from dspy import lm15

        self.replies.append(reply)
        usage = reply.usage
        return lm15.Response(
            id=None,
            model=reply.model or self._ask.models[0],
            message=lm15.Message.assistant(reply.text or " "),
            finish_reason="stop",
            usage=lm15.Usage(
                input_tokens=usage.input_tokens if usage else None,
                output_tokens=usage.output_tokens if usage else None,
            ),
        )


class _Engine(_Base):
    def __init__(self, step: Reason, complete: Callable[[Complete], Reply]) -> None:
        super().__init__(step)
        self._complete = complete

    def complete(self, request: Any) -> Any:
        try:
            return self._response(self._complete(self._step(request)))
        except ChatError as exc:
            self._error = exc
            raise


class _AsyncEngine(_Base):
    def __init__(self, step: Reason, complete: Callable[[Complete], Awaitable[Reply]]) -> None:
        super().__init__(step)
        self._complete = complete

    async def complete(self, request: Any) -> Any:
        try:
            return self._response(await self._complete(self._step(request)))
        except ChatError as exc:
            self._error = exc
            raise


def _never(step: Complete) -> Reply:
    raise ProviderError(f"{step.model} was asked in a thread, in an event loop")


def _messages(request: Any) -> list[Message]:
    system = [{"role": "system", "content": _text(request.system)}] if request.system else []
    return system + [{"role": _role(m.role), "content": _text(m.parts)} for m in request.messages]


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _text(parts: Any) -> str:
    if isinstance(parts, str):
        return parts
    return "".join(getattr(part, "text", "") for part in parts)
