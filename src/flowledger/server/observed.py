"""Which calls were really stored: what a transaction added to the ledger, once it is committed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

from flowledger.store.rows import LEDGER
from flowledger.store.writers import Writer

__all__ = ["ObservedWriter", "Observer", "Stored"]


class Stored(NamedTuple):
    """What metrics need to know of a call that is new in the ledger; columns of `llm_measured`."""

    model: str | None
    feature: str | None
    persona_id: str | None
    success: bool
    input_tokens: int
    output_tokens: int
    cost_usd: float
    estimated_cost_usd: float
    unpriced: int
    start_ms: int
    latency_ms: float


Observer: TypeAlias = Callable[[Sequence[Stored]], None]

# That view is the one place that says which calls count and whose price is unknown.
_MEASURED = f"SELECT {', '.join(Stored._fields)} FROM llm_measured WHERE id IN ({{ids}})"


class ObservedWriter:
    """A `Writer` that tells what it added to the ledger; second deliveries add nothing.

    Args:
        writer: the one that does the work.
        observers: told after each commit, in the thread that stores.
    """

    def __init__(self, writer: Writer, observers: Sequence[Observer]) -> None:
        self.engine = writer.engine
        self.mark = writer.mark
        self.known = writer.known
        self.upsert = writer.upsert
        self.among = writer.among
        self.lock = writer.lock
        self.analyze = writer.analyze
        self._writer = writer
        self._observers = observers
        self._added: list[Stored] = []

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """One transaction; the observers hear of it when it is committed."""
        self._added = []
        with self._writer.transaction() as cursor:
            yield cursor
        if self._added:
            for observer in self._observers:
                observer(self._added)

    def insert(self, cursor: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert new rows."""
        self._writer.insert(cursor, table, rows)
        if table == LEDGER:
            self._writer.among(cursor, _MEASURED, [row[0] for row in rows])
            self._added = [Stored._make(row) for row in cursor.fetchall()]
