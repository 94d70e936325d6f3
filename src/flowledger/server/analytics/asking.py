"""How routes ask the ledger: in a thread, as whoever sent the request, with errors as HTTP."""

import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol, TypeVar

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool

from flowledger.config import Destination, Settings
from flowledger.errors import FlowledgerError
from flowledger.questions import Ledger
from flowledger.server.problems import as_http

if TYPE_CHECKING:  # they import MLflow, which an app that only asks does without
    from flowledger.server.callers import Caller
    from flowledger.server.parts import Parts

__all__ = ["Asker", "LocalAsker", "Question", "ServerAsker"]

T = TypeVar("T")
# What is asked: of the ledger, by somebody who may read these experiments; None is all of them.
Question = Callable[[Ledger, Collection[int] | None], T]


class Asker(Protocol):
    """Asks the ledger for a request."""

    settings: Settings

    async def ask(self, request: Request, question: Question[T]) -> T:
        """What the question returns.

        Raises:
            HTTPException: 404, 422 and 503 in a sentence; 429 when too much is asked at once.
        """
        ...

    def place(self, request: Request) -> str:
        """What the answer calls the tracking URI."""
        ...

    def check_admin(self, request: Request) -> None:
        """Let only those change experiments who may.

        Raises:
            HTTPException: 403.
        """
        ...


class LocalAsker:
    """Asks a database from within any FastAPI app."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._open = _Opened(
            lambda: _make_tables(settings.destination),
            lambda: Ledger(settings.tracking_uri, settings.statement_seconds),
        )

    async def ask(self, request: Request, question: Question[T]) -> T:
        """What the question returns, about every experiment."""

        def answer() -> T:
            try:
                return question(self._open.ledger(), None)
            except FlowledgerError as exc:  # the app has no handler for our errors
                raise as_http(exc) from exc

        return await run_in_threadpool(answer)

    def place(self, request: Request) -> str:
        """The database, without its password."""
        return self.settings.destination.redacted().tracking_uri

    def check_admin(self, request: Request) -> None:
        """Everybody whom the app lets in may."""


class ServerAsker:
    """Asks for the routes of a flowledger server, as one of MLflow's users where there are any."""

    def __init__(self, parts: "Parts") -> None:
        self.settings = parts.common
        self._parts = parts
        self._open = _Opened(
            lambda: parts.database.engine,
            lambda: Ledger(parts.common.tracking_uri, parts.settings.question_seconds),
        )

    async def ask(self, request: Request, question: Question[T]) -> T:
        """What the question returns, about the experiments that the user may read."""

        def answer() -> T:
            ledger = self._open.ledger()
            return question(ledger, self._readable(request, ledger))

        return await self._parts.ask(answer)

    def place(self, request: Request) -> str:
        """This server."""
        return str(request.base_url).rstrip("/")

    def check_admin(self, request: Request) -> None:
        """With authentication only MLflow's administrators may."""
        if self._parts.users is not None and not _caller(request).is_admin:
            raise HTTPException(403, "only an administrator may do that: log in as one")

    def _readable(self, request: Request, ledger: Ledger) -> Collection[int] | None:
        if self._parts.users is None:
            return None
        caller = _caller(request)
        if caller.is_admin:
            return None
        ids = [str(row.experiment_id) for row in ledger.experiments()]
        return {int(one) for one in self._parts.users.readable(caller, ids)}


class _Opened:
    """The ledger, opened when it is first asked; its tables are made where they are missing."""

    def __init__(
        self, make_tables: Callable[[], object], open_ledger: Callable[[], Ledger]
    ) -> None:
        self._make_tables = make_tables
        self._open_ledger = open_ledger
        self._opening = threading.Lock()
        self._ledger: Ledger | None = None

    def ledger(self) -> Ledger:
        with self._opening:
            if self._ledger is None:
                self._make_tables()
                self._ledger = self._open_ledger()
            return self._ledger


def _make_tables(place: Destination) -> None:
    from flowledger.store.bulk import open_bulk

    open_bulk(place).close()


def _caller(request: Request) -> "Caller":
    from flowledger.server.callers import caller_of

    return caller_of(request)
