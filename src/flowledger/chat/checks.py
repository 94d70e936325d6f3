"""What can be asked: an argument that cannot be used is refused before anything is sent."""

from collections.abc import Mapping
from typing import Any

from flowledger.chat.methods import METHODS
from flowledger.chat.steps import Ask, Message
from flowledger.config import Settings
from flowledger.errors import ChatInputError

__all__ = ["checked"]

TOO_LONG = 1_000_000
ROLES = ("system", "user", "assistant")
MOST_PASSAGES = 100
HOTTEST = 2


def checked(asked: Mapping[str, Any], settings: Settings, session_id: str | None) -> Ask:
    """The call as its steps need it.

    Raises:
        ChatInputError: an argument cannot be used; the message says what to change.
    """
    remembers, history = _history(asked["history"], session_id)
    return Ask(
        message=_message(asked["message"]),
        chat_type=_one_of("chat_type", asked["chat_type"], tuple(METHODS)),
        models=_models(asked["model"], asked["fallbacks"], settings),
        temperature=_number("temperature", asked["temperature"], 0, HOTTEST),
        max_tokens=int(_number("max_tokens", asked["max_tokens"], 1, 2**31)),
        session_id=session_id,
        system=_text_or_none("system", asked["system"]),
        history=history,
        remembers=remembers,
        top_k=int(_number("top_k", asked["top_k"], 1, MOST_PASSAGES)),
    )


def _message(message: Any) -> str:
    if not isinstance(message, str) or not message.strip():
        raise ChatInputError("the message must be text, and not empty")
    if len(message) >= TOO_LONG:
        raise ChatInputError(
            f"the message has {len(message)} characters, and less than {TOO_LONG} can be asked: "
            "add it as a document (flowledger docs add PATH) and ask with chat_type='rag'"
        )
    return message


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ChatInputError(f"{name}={value!r}: use one of {', '.join(allowed)}")
    return value


def _models(model: Any, fallbacks: Any, settings: Settings) -> tuple[str, ...]:
    """The model asked for and those that stand in for it, each once."""
    if fallbacks is None:
        fallbacks = settings.chat_fallbacks.split(",")
    others = [fallbacks] if isinstance(fallbacks, str) else fallbacks
    names = [model or settings.chat_model, *others]
    if not all(isinstance(name, str) for name in names):
        raise ChatInputError("model and fallbacks are names of models, as 'openai/gpt-4o'")
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


def _number(name: str, value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ChatInputError(f"{name}={value!r}: use a number from {least} to {most}")
    return value


def _text_or_none(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ChatInputError(f"{name} must be text")
    return value


def _history(history: Any, session_id: str | None) -> tuple[bool, tuple[Message, ...]]:
    """Whether to look earlier turns up, and those that were given."""
    if history is True and session_id is None:
        raise ChatInputError("history=True looks a session up: give its session_id")
    if history is None or isinstance(history, bool):
        return bool(history), ()
    try:
        return False, tuple({"role": m["role"], "content": m["content"]} for m in history)
    except (TypeError, KeyError) as exc:
        raise ChatInputError("history is True, or messages with role and content") from exc
