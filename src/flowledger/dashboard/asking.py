"""What the dashboard needs of the app it stands in."""

from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from starlette.requests import Request

from flowledger.config import Settings
from flowledger.questions import Ledger

__all__ = ["Asker", "May"]

T = TypeVar("T")
May = Collection[int] | None  # ids of the experiments that somebody may read; None is all of them


class Asker(Protocol):
    """Asks the ledger for a request, in a thread, as whoever sent it."""

    settings: Settings

    async def ask(self, request: Request, question: Callable[[Ledger, May], T]) -> T:
        """What the question returns.

        Raises:
            HTTPException: the asker is busy, or the database does not answer.
            FlowledgerError: the question cannot be answered.
        """
        ...
