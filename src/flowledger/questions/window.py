"""What a question is about: a span of time, and which calls in it."""

import time
from collections.abc import Collection
from typing import Self

import msgspec

from flowledger.errors import QuestionError

__all__ = ["ALWAYS", "Filters", "Window"]

MS_OF_A_DAY, MS_OF_A_MINUTE = 86_400_000, 60_000
LONGEST_DAYS = 3660
STATUSES = ("success", "failed")


class Window(msgspec.Struct, frozen=True):
    """From `start_ms` up to but without `end_ms`, in Unix milliseconds."""

    start_ms: int
    end_ms: int

    @classmethod
    def last(cls, days: float, now_ms: int | None = None) -> Self:
        """The last so many days up to now.

        Raises:
            QuestionError: that is no number of days.
        """
        if not 0 < days <= LONGEST_DAYS:
            raise QuestionError(f"days={days:g}: give more than 0 and at most {LONGEST_DAYS}")
        end_ms = now_ms or time.time_ns() // 1_000_000
        return cls(end_ms - round(days * MS_OF_A_DAY), end_ms)

    @property
    def minutes(self) -> float:
        """How long it is."""
        return (self.end_ms - self.start_ms) / MS_OF_A_MINUTE

    def before(self) -> "Window":
        """The window of the same length that ends where this one begins."""
        return Window(2 * self.start_ms - self.end_ms, self.start_ms)


ALWAYS = Window(0, 1_000_000 * MS_OF_A_DAY)


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls are meant; None is any.

    experiment: name of an MLflow experiment.
    kind: one of `flowledger.records.Kind`, such as `chat`.
    status: `success` or `failed`.
    tag: `key=value`, one of the caller's own tags.
    readable: ids of the experiments that may be seen at all; None is every one.
    """

    experiment: str | None = None
    feature: str | None = None
    persona_id: str | None = None
    provider: str | None = None
    model: str | None = None
    prompt_version: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    kind: str | None = None
    status: str | None = None
    tag: str | None = None
    readable: Collection[int] | None = None

    def __post_init__(self) -> None:
        if self.status not in (None, *STATUSES):
            raise QuestionError(f"status={self.status!r}: use {' or '.join(STATUSES)}")
        if self.tag is not None and "=" not in self.tag:
            raise QuestionError(f"tag={self.tag!r}: write key=value")
