"""The library: documents in passages, found by words and by vectors, and sessions in turns.

opened -> SqliteLibrary     a file on this host
       -> PostgresLibrary   one database for many hosts; vectors need its pgvector extension
"""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from flowledger.capture import recorder
from flowledger.config import Settings
from flowledger.errors import ConfigError

__all__ = ["Document", "Found", "Library", "Listed", "Passage", "Turn", "opened"]


class Passage(msgspec.Struct, frozen=True):
    """A piece of a document, and the page or heading it stands under."""

    place: str
    text: str


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document in passages. `digest` names its content, `vectors` has one for each passage.

    A vector is a unit vector's 32-bit floats; `embedding` names the model they are of.
    """

    source: str
    digest: str
    passages: Sequence[Passage]
    embedding: str = ""
    vectors: Sequence[bytes] = ()


class Found(msgspec.Struct, frozen=True):
    """A passage that was found, as it stands in the library."""

    id: int
    source: str
    place: str
    text: str


class Listed(msgspec.Struct, frozen=True):
    """A document the library has."""

    source: str
    digest: str
    embedding: str
    passages: int


class Turn(msgspec.Struct, frozen=True):
    """A turn of a session that has begun, with the questions and answers before it."""

    session_id: str
    number: int
    earlier: list[tuple[str, str]]


class Library(Protocol):
    """Keeps documents and sessions; safe to use from many threads and processes.

    What a method did is committed when it returns. Each raises `DocumentError` when the database
    does not do it.
    """

    def add(self, documents: Sequence[Document]) -> None:
        """Add documents in one transaction, each in the place of an older one of its source."""

    def remove(self, source: str) -> bool:
        """Delete a document; whether it was there."""

    def listed(self) -> list[Listed]:
        """Every document, by source."""

    def is_empty(self) -> bool:
        """Whether there is nothing to find."""

    def by_words(self, words: Sequence[str], limit: int) -> list[tuple[int, float]]:
        """Ids of passages with any of these words, best first, with scores: more is better."""

    def by_vector(self, vector: bytes, limit: int) -> list[tuple[int, float]]:
        """Ids of passages nearest to a unit vector, nearest first, with the cosine."""

    def passages(self, ids: Sequence[int]) -> dict[int, Found]:
        """Those of these passages that are still there."""

    def begin_turn(self, session_id: str, asked: str, earlier: int) -> Turn:
        """Number a session's next turn, and find so many answered ones before it."""

    def end_turn(self, turn: Turn, answered: str) -> None:
        """Keep the answer of a turn."""

    def forget(self, session_id: str) -> int:
        """Delete a session; how many turns it had."""

    def forget_before(self, before_ms: int) -> int:
        """Delete turns that began before a time, Unix milliseconds; how many there were."""

    def overwrite_freed(self) -> None:
        """Leave no bytes behind of turns that were deleted."""

    def close(self) -> None:
        """Close every connection of this process."""


def opened() -> Library:
    """The library that the settings name, kept open in this process.

    Raises:
        ConfigError: `chat_store` is no database, or a package for it is missing.
        DocumentError: it cannot be opened.
    """
    return _opened(os.getpid(), _uri(recorder.settings()))


def _uri(settings: Settings) -> str:
    return settings.chat_store or f"sqlite:///{Path(settings.home, 'chat.db')}"


@functools.lru_cache(maxsize=8)
def _opened(pid: int, uri: str) -> Library:
    """One for each process: a forked child must not share its parent's connections."""
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        from flowledger.chat.library.sqlite import SqliteLibrary

        return SqliteLibrary(Path(uri.partition(":///")[2]))
    if scheme == "postgresql":
        try:
            from flowledger.chat.library.postgres import PostgresLibrary
        except ImportError as exc:
            raise ConfigError(
                "chat_store on PostgreSQL needs psycopg: pip install 'flowledger[postgres]'"
            ) from exc
        return PostgresLibrary(uri)
    raise ConfigError(f"chat_store={uri!r}: use sqlite:/// or postgresql://")


def batches(documents: Iterator[Document], passages: int) -> Iterator[list[Document]]:
    """Documents in batches of about so many passages, each for one transaction."""
    batch: list[Document] = []
    for document in documents:
        batch.append(document)
        if sum(len(one.passages) for one in batch) >= passages:
            yield batch
            batch = []
    if batch:
        yield batch
