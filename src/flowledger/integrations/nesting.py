"""One call, one record, where a library that is recorded calls another one that is recorded too.

LiteLLM calls through `openai`, LangChain through either. A layer that stands around the call itself
covers what is inside; one that only hears of it later asks what an inner layer has recorded.
"""

import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

__all__ = ["covered", "covering", "knows", "note", "note_error"]

_covered: ContextVar[bool] = ContextVar("flowledger_covered", default=False)
# Without locks, which a forked child might find closed.
_answers: deque[str] = deque(maxlen=1000)
_errors: "weakref.WeakSet[BaseException]" = weakref.WeakSet()


def covered() -> bool:
    """Whether an outer layer records what happens here."""
    return _covered.get()


@contextmanager
def covering() -> Iterator[None]:
    """What is called inside is recorded out here."""
    token = _covered.set(True)
    try:
        yield
    finally:
        with suppress(ValueError):  # left in another task than it was entered
            _covered.reset(token)


def note(answer_id: object) -> None:
    """The answer of that id is recorded; only the latest are remembered."""
    if isinstance(answer_id, str):
        _answers.append(answer_id)


def note_error(error: BaseException) -> None:
    """The call that raised this is recorded."""
    with suppress(TypeError):  # some exceptions take no weak reference
        _errors.add(error)


def knows(answer_id: object = None, error: BaseException | None = None) -> bool:
    """Whether the answer of that id, or the call that raised this, is recorded already."""
    while error is not None:
        with suppress(TypeError):  # some have no hash
            if error in _errors:
                return True
        error = error.__cause__ or error.__context__
    return isinstance(answer_id, str) and answer_id in _answers.copy()
