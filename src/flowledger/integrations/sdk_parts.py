"""Gathering the chunks of a stream, in bounded memory, into the form of a whole answer."""

from io import StringIO
from typing import Any, Protocol

__all__ = ["MAX_PIECES", "Kept", "Parts"]

MAX_KEPT = 4 << 20
MAX_PIECES = 1000


class Parts(Protocol):
    """What came of a streamed answer so far.

    `complete` says that the answer's own last word was among it, `cut` that some was not kept.
    """

    complete: bool

    @property
    def cut(self) -> bool:
        """Whether something was not kept."""

    def saw(self, chunk: Any) -> bool:
        """Take in one chunk; True when it carries content."""

    def answer(self) -> Any:
        """What came so far, in the form of a whole answer."""


class Kept:
    """Texts that come in pieces, by key; together never longer than `MAX_KEPT` characters."""

    def __init__(self) -> None:
        self._texts: dict[Any, StringIO] = {}
        self._room = MAX_KEPT
        self.cut = False

    def add(self, key: Any, piece: str) -> None:
        """The next piece of a text."""
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = StringIO()
        if len(piece) > self._room:
            self.cut = True
            piece = piece[: self._room]
        self._room -= len(piece)
        text.write(piece)

    def text(self, key: Any) -> str | None:
        """What there is of a text; None where nothing came."""
        text = self._texts.get(key)
        return None if text is None else text.getvalue()

    def keys(self) -> set[Any]:
        """The keys of all texts."""
        return set(self._texts)
