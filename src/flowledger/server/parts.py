"""What one worker of the server is made of: the parts that routes are given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from flowledger.config import Destination, Settings
from flowledger.server.callers import MlflowUsers
from flowledger.server.crew import Crew
from flowledger.server.database import Database
from flowledger.server.metrics import Metrics
from flowledger.server.settings import ServerSettings
from flowledger.server.sinks import Sinks

__all__ = ["Parts", "make_parts"]

T = TypeVar("T")

WITHOUT_TRACES = {"run+trace": "run", "trace": "ledger"}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of one worker, shared by its routes.

    common: settings that applications have too; its destination is the database behind the server.
    settings: of the server alone.
    sinks: where ingest writes.
    beside_traces: the same for calls whose trace MLflow has already.
    database: for short questions of the server's own.
    questions: threads for those questions, with a bound on how long the client waits.
    callers: threads that look up users who are known already.
    keys: threads that look up keys.
    log_ins: threads that compare passwords nobody knows to be right; a flood of them is alone here.
    metrics: what `/metrics` says of this worker.
    users: MLflow's users with `--auth basic`, else None.
    """

    common: Settings
    settings: ServerSettings
    sinks: Sinks
    beside_traces: Sinks
    database: Database
    questions: Crew
    callers: Crew
    keys: Crew
    log_ins: Crew
    metrics: Metrics
    users: MlflowUsers | None

    async def ask(self, question: Callable[[], T]) -> T:
        """Ask the database something in a thread.

        Raises:
            HTTPException: 429 too many questions at once, 503 no answer in time.
        """
        return await self.questions.do(question)

    def close(self) -> None:
        """Let go of threads and connections."""
        self.sinks.close()
        self.beside_traces.close()
        for crew in (self.questions, self.callers, self.keys, self.log_ins):
            crew.close()
        self.database.close()


def make_parts(
    common: Settings,
    settings: ServerSettings,
    metrics: Metrics,
    users: MlflowUsers | None,
) -> Parts:
    """The parts of a worker over this database; nothing is connected yet."""
    seconds = settings.question_seconds
    return Parts(
        common=common,
        settings=settings,
        sinks=Sinks(common.destination, settings, [metrics.stored]),
        beside_traces=Sinks(_without_traces(common.destination), settings, [metrics.stored]),
        database=Database(common.tracking_uri),
        questions=Crew("flowledger-ask", threads=4, places=64, seconds=seconds),
        callers=Crew("flowledger-callers", threads=4, places=64, seconds=seconds),
        keys=Crew("flowledger-keys", threads=2, places=64, seconds=seconds),
        log_ins=Crew("flowledger-log-ins", threads=2, places=64, seconds=seconds),
        metrics=metrics,
        users=users,
    )


def _without_traces(destination: Destination) -> Destination:
    store_as = WITHOUT_TRACES.get(destination.store_as, destination.store_as)
    return msgspec.structs.replace(destination, store_as=store_as)
