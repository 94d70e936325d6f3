"""The ledger, read: each question is one method, one named block of SQL, one type of row."""

import re
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import sqlalchemy as sa

from flowledger.config import without_password
from flowledger.errors import NotFound
from flowledger.questions import content
from flowledger.questions.around import Around, around
from flowledger.questions.catalog import catalog
from flowledger.questions.engine import open_engine, reading
from flowledger.questions.over import Over
from flowledger.questions.rows import (
    CallRow,
    Chain,
    ChainChange,
    Content,
    Experiment,
    FeatureOf,
    LedgerSize,
    Losses,
    RecentCall,
    Step,
    StoredCall,
)
from flowledger.questions.steps import Steps
from flowledger.questions.window import ALWAYS, Filters, Window
from flowledger.store.connections import USUAL
from flowledger.store.partitions import Parts, look
from flowledger.store.schema import why_unsupported

__all__ = ["Ledger"]

R = TypeVar("R", bound=msgspec.Struct)

SHORTEST_PREFIX = 6
FULL_ID = 32
MOST_NAMED = 5
MOST_LISTED = 20
FETCHED = 200  # rows at once, of which each may hold a long text
ANY = Filters()
CONTENT_GONE = "its prompt and response are not in MLflow any more: the trace was deleted"

_hex = re.compile(r"[0-9a-f]+")


class Ledger:
    """Read-only questions to the database that calls are stored in.

    May be shared by threads. Every method raises `NotFound` where nothing is stored yet, and
    `StoreUnavailable` where the database does not answer.

    Args:
        tracking_uri: the database, as MLflow writes it: `sqlite:///...` or `postgresql://...`.
        statement_seconds: how long PostgreSQL may take for one statement.

    Raises:
        NotFound: there is no such SQLite file.
        StoreMisconfigured: the URI names no database.
    """

    def __init__(self, tracking_uri: str, statement_seconds: float = USUAL.statement) -> None:
        self.place = without_password(tracking_uri)
        self._engine = open_engine(tracking_uri, statement_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections."""
        self._engine.dispose()

    def recent(self, limit: int = 20) -> list[RecentCall]:
        """The latest calls, newest first."""
        return self.over().calls(limit).rows

    def over(self, window: Window = ALWAYS, filters: Filters = ANY) -> Over:
        """Questions to one window of the ledger.

        Args:
            window: of time; all of it by default.
            filters: which calls; all by default.

        Raises:
            NotFound: no call has the feature, or there is no experiment, that the filters name.
        """
        experiments = {row.experiment_id: row.name for row in self.experiments()}
        if filters.experiment is not None:
            _check("experiment", filters.experiment, self._readable(experiments, filters))
        if filters.feature is not None:
            _check("feature", filters.feature, self._features(filters))
        return Over(self._fill, window, filters, experiments, self._stream)

    def experiments(self) -> list[Experiment]:
        """Every MLflow experiment, deleted ones included."""
        return self._ask("experiments", Experiment)

    def features(self) -> list[FeatureOf]:
        """Which features have had calls, and in which experiments."""
        return self._ask("features_of_experiments", FeatureOf)

    def calls_of_process(self, producer_id: str) -> int:
        """How many calls of one process are stored."""
        return int(self._value("calls_of_process", producer_id=producer_id) or 0)

    def steps(self, call: StoredCall, readable: Collection[int] | None = None) -> list[Step]:
        """What happened around and inside a call, as a waterfall: outermost first, by time.

        Args:
            call: in the middle of it.
            readable: ids of the experiments that may be seen at all; None is every one.
        """
        return Steps(self._fill, self._value, readable).of(call)

    def chain(self) -> Chain:
        """The chain of evidence, as its last link says it."""
        return self._ask("chain_state", Chain)[0]

    def chain_changes(self, limit: int = 20) -> list[ChainChange]:
        """The latest corrections, removals, erasures and purges, newest first."""
        return self._ask("chain_changes", ChainChange, limit=limit)

    def has_run(self, call_id: str) -> bool:
        """Whether a call is a run in MLflow."""
        return self._value("run_of_call", id=call_id) is not None

    def first_ms(self) -> int | None:
        """When the first call of all began."""
        first: int | None = self._value("first_call")
        return first

    def size(self) -> LedgerSize:
        """How many records there are."""
        return self._ask("ledger_size", LedgerSize)[0]

    def losses(self) -> Losses:
        """What applications counted but could not keep."""
        return self._ask("dropped_records", Losses)[0]

    def revision(self) -> str | None:
        """The Alembic revision of MLflow's tables; None where there are none."""
        with reading(self._engine, self.place) as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
        revision: str | None = self._value("mlflow_revision")
        return revision

    def unsupported(self) -> str | None:
        """Why calls are not written to this database, by MLflow's revision; None where they are."""
        with reading(self._engine, self.place) as connection:
            return why_unsupported(connection)

    def parts(self) -> Parts:
        """How the table of calls is kept: in one, or by month."""
        with reading(self._engine, self.place) as connection:
            return look(connection)

    def call(self, wanted: str, readable: Collection[int] | None = None) -> StoredCall:
        """Everything kept about one call.

        Args:
            wanted: the call's id, its trace's id, or at least 6 characters that begin only one.
            readable: ids of the experiments that may be seen at all; None is every one.

        Raises:
            NotFound: no call, or more than one, has such an id; the message says what to give.
        """
        row = self._ask("call_by_id", CallRow, id=self._resolve(wanted))[0]
        if readable is not None and row.experiment_id not in readable:
            raise NotFound(f"no call with the id {wanted} is stored in {self.place}")
        columns = msgspec.structs.asdict(row)
        details = msgspec.json.decode(columns.pop("details"))
        content, traced = self._content(row)
        if not traced and row.content is None:
            details["notes"] = [*details.get("notes", ()), CONTENT_GONE]
        return msgspec.convert(
            {
                **columns,
                **details,
                "experiment": self._value("experiment_name", experiment_id=row.experiment_id),
                "trace_id": f"tr-{row.id}" if traced else None,
                "content": content,
            },
            StoredCall,
        )

    def _span(self, trace_id: str, span_id: str) -> str | None:
        found: str | None = self._value("span_content", trace_id=trace_id, span_id=span_id)
        return found

    def around(self, call: StoredCall) -> Around:
        """What stands around a call: what it was made in, what was made in it, and their spans."""
        return around(self._ask, self._span, lambda one: self.call(one).content.response, call)

    def _content(self, row: CallRow) -> tuple[Content, bool]:
        """What was asked and answered, and whether a trace holds it."""
        if row.content is not None:
            return content.of_ledger(row.content), False
        span = self._span(f"tr-{row.id}", row.id[16:])
        return (Content(), False) if span is None else (content.of_span(span), True)

    def _resolve(self, wanted: str) -> str:
        prefix = wanted.strip().lower().removeprefix("tr-").replace("-", "")
        if not _hex.fullmatch(prefix) or not SHORTEST_PREFIX <= len(prefix) <= FULL_ID:
            raise NotFound(
                f"{wanted!r} is no call's id: give {FULL_ID} hexadecimal characters, or the first "
                f"{SHORTEST_PREFIX} or more; `flowledger recent` lists them"
            )
        ids = self._beginning_with(prefix)
        if not ids:
            raise NotFound(f"no call with the id {wanted} is stored in {self.place}")
        if len(ids) > 1:
            named = ", ".join(ids[:MOST_NAMED]) + (" and others" if len(ids) > MOST_NAMED else "")
            raise NotFound(f"several ids begin with {wanted}, give more characters: {named}")
        return ids[0]

    def _beginning_with(self, prefix: str) -> list[str]:
        beyond = f"{prefix}g"  # ids are hexadecimal, so all that begin with it sort before this
        bounds = {"first": prefix, "beyond": beyond, "limit": MOST_NAMED + 1}
        return [str(row[0]) for row in self._rows("ids_between", bounds)]

    def _readable(self, experiments: dict[int, str], filters: Filters) -> list[str]:
        may = filters.readable
        return [name for key, name in experiments.items() if may is None or key in may]

    def _features(self, filters: Filters) -> list[str]:
        may = filters.readable
        found = self.features()
        return sorted(
            {
                row.feature
                for row in found
                if row.feature and (may is None or row.experiment_id in may)
            }
        )

    def _value(self, name: str, **parameters: Any) -> Any:
        """The first column of the first row, or None when there is no row."""
        rows = self._rows(name, parameters)
        return rows[0][0] if rows else None

    def _ask(self, name: str, row_type: type[R], **parameters: Any) -> list[R]:
        return self._fill(row_type, name, {}, parameters)

    def _fill(
        self, row_type: type[R], name: str, holes: dict[str, str], parameters: dict[str, Any]
    ) -> list[R]:
        return list(self._stream(row_type, name, holes, parameters, at_once=None))

    def _stream(
        self,
        row_type: type[R],
        name: str,
        holes: dict[str, str],
        parameters: dict[str, Any],
        at_once: int | None = FETCHED,
    ) -> Iterator[R]:
        """Rows of one moment, so many at once as they are wanted; None is all of them."""
        # SQLite keeps flags as 0 and 1.
        flags = {f.name: sa.Boolean() for f in msgspec.structs.fields(row_type) if f.type is bool}
        holes = {"columns": ", ".join(row_type.__struct_fields__), **holes}
        question = sa.text(catalog()[name].filled(holes)).columns(**flags)
        options = {"yield_per": at_once} if at_once else {}
        with (
            reading(self._engine, self.place) as connection,
            connection.execute(question, parameters, execution_options=options) as rows,
        ):
            for row in rows:
                yield msgspec.convert(row._asdict(), row_type)

    def _rows(self, name: str, parameters: dict[str, Any]) -> list[sa.Row[Any]]:
        """Every row a block without holes answers."""
        with reading(self._engine, self.place) as connection:
            return list(connection.execute(sa.text(catalog()[name].sql), parameters))


def _check(what: str, wanted: str, there: Collection[str]) -> None:
    if wanted not in there:
        some = ", ".join(sorted(there)[:MOST_LISTED]) or "none yet"
        raise NotFound(f"no call has the {what} {wanted[:100]!r}; there are: {some}")
