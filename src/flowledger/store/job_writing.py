"""Writing jobs, spans and logged values beside the calls of a batch, in its one transaction."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from flowledger.records import Artifact, Gone
from flowledger.store.entries import Entry
from flowledger.store.job_entries import Piece, SpanPart, call_span, unknown_job
from flowledger.store.job_rows import Statements, insert_into
from flowledger.store.rollup_queue import queue_rebuilds
from flowledger.store.rows import Experiment
from flowledger.store.writers import Writer

__all__ = ["end_jobs", "experiments_of", "new_pieces", "write_pieces"]

SOME = 500


class Unplaced(ValueError):
    """A record belongs to a run that is not there, or is another experiment's."""


class _Found(NamedTuple):
    """Which runs and traces are there, and in which experiment."""

    runs: dict[str, int]
    traces: dict[str, int]


def experiments_of(calls: Iterable[Entry], pieces: Iterable[Piece]) -> set[str]:
    """The experiments that must be there before the batch is written."""
    names = {one.experiment for one in pieces}
    names |= {call.call.place.experiment for call in calls if call.call.place is not None}
    return {name for name in names if name}


def new_pieces(writer: Writer, cursor: Any, pieces: Sequence[Piece]) -> list[Piece]:
    """Those of these records that are not stored yet."""
    known: set[tuple[str, int]] = set()
    for producer in {made.record.producer for made in pieces}:
        numbers = [made.record.seq for made in pieces if made.record.producer == producer]
        mark = writer.mark
        cursor.execute(
            "SELECT producer_id, seq FROM llm_records"
            f" WHERE producer_id = {mark} AND seq BETWEEN {mark} AND {mark}",
            (producer, min(numbers), max(numbers)),
        )
        known.update((row[0], row[1]) for row in cursor)
    return [made for made in pieces if made.key not in known]


def write_pieces(
    writer: Writer,
    cursor: Any,
    calls: Iterable[Entry],
    pieces: Sequence[Piece],
    experiments: dict[str, Experiment],
    *,
    traces: bool,
) -> list[tuple[str, tuple[Any, ...]]]:
    """Write records that are no calls, and the spans of calls in the traces of their jobs.

    A job is a run whatever calls become; it has a trace where calls have one.

    Args:
        writer, cursor: the database, in a transaction.
        calls: the new calls of the batch, which are written already.
        pieces: the other records of the batch.
        experiments: the experiment of each name that these use.
        traces: whether there are to be traces.

    Returns:
        The rows that were written, for the chain: tables and what tells a row apart there.

    Raises:
        Unplaced: a record names a run that is not there.
    """
    spans = [span for call in calls if (span := call_span(call)) is not None] if traces else []
    pieces = new_pieces(writer, cursor, pieces) if pieces else pieces
    if not spans and not pieces:
        return []
    writing = _Writing(writer, cursor, experiments, traces)
    writing.write(spans, pieces)
    return writing.written


def end_jobs(writer: Writer, cursor: Any, gone: Gone) -> list[tuple[str, tuple[Any, ...]]]:
    """Mark jobs KILLED that a process began and will never end.

    Args:
        writer, cursor: the database, in a transaction.
        gone: the process.

    Returns:
        The rows that were changed, for the chain, as `write_pieces` tells them.
    """
    mark, ended_ms = writer.mark, gone.start_ns // 1_000_000
    jobs = f"FROM llm_records WHERE producer_id = {mark} AND kind = 'job'"
    running = f"status = 'RUNNING' AND run_uuid IN (SELECT id {jobs})"
    open_ = f"status = 'IN_PROGRESS' AND request_id IN (SELECT 'tr-' || id {jobs})"
    cursor.execute(f"SELECT run_uuid FROM runs WHERE {running}", (gone.producer,))
    changed: list[tuple[str, tuple[Any, ...]]] = [("runs", (row[0],)) for row in cursor.fetchall()]
    cursor.execute(f"SELECT request_id FROM trace_info WHERE {open_}", (gone.producer,))
    changed += [("trace_info", (row[0],)) for row in cursor.fetchall()]
    if changed:
        cursor.execute(
            f"UPDATE runs SET status = 'KILLED', end_time = {mark} WHERE {running}",
            (ended_ms, gone.producer),
        )
        cursor.execute(
            f"UPDATE trace_info SET status = 'ERROR', execution_time_ms = {mark} - timestamp_ms"
            f" WHERE {open_}",
            (ended_ms, gone.producer),
        )
        queue_rebuilds(writer, cursor, [key[0] for table, key in changed if table == "trace_info"])
    return changed


class _Writing:
    """One batch on its way into one database."""

    def __init__(
        self, writer: Writer, cursor: Any, experiments: dict[str, Experiment], traces: bool
    ) -> None:
        self._writer = writer
        self._cursor = cursor
        self._experiments = experiments
        self._traces = traces
        self.written: list[tuple[str, tuple[Any, ...]]] = []

    def write(self, spans: list[SpanPart], pieces: Sequence[Piece]) -> None:
        if self._traces:
            spans = [*spans, *(made.span for made in pieces if made.span is not None)]
        else:
            spans = []
        self._execute(lambda into: self._add_roots(into, pieces))
        found = self._find(spans, pieces)
        missing = [*self._unknown_runs(found, pieces), *self._unknown_traces(found, spans)]
        if missing:
            self._execute(lambda into: self._add_roots(into, missing))
            found = self._find(spans, pieces)
        self._execute(lambda into: self._add_rest(into, found, spans, pieces))

    def _execute(self, fill: Callable[[Statements], None]) -> None:
        into = Statements()
        fill(into)
        for rule, rows in into.rows.items():
            if rows:
                self._cursor.executemany(insert_into(rule, self._writer.mark), rows)
        self.written += into.told_apart()

    def _add_roots(self, into: Statements, pieces: Iterable[Piece]) -> None:
        """Runs and traces, which everything else refers to."""
        for made in pieces:
            experiment = self._experiments.get(made.experiment or "")
            if experiment is not None and made.run is not None:
                into.add_run(made.run, experiment)
            if experiment is not None and made.trace is not None and self._traces:
                into.add_trace(made.trace, experiment)

    def _add_rest(
        self, into: Statements, found: _Found, spans: list[SpanPart], pieces: Sequence[Piece]
    ) -> None:
        for made in pieces:
            if made.run_id is not None:
                self._check("run", made.run_id, made, found.runs)
            if made.span is not None and self._traces:
                self._check("trace", made.span.place.root_id, made, found.traces)
            if made.logged is not None:
                into.add_logged(made.logged)
            if not isinstance(made.record, Artifact):  # is stored once the artifact store has it
                into.add_record(made)
        for span in spans:
            experiment_id = found.traces.get(span.place.root_id)
            expected = self._experiments.get(span.place.experiment or "")
            if experiment_id is None or (expected and expected.id != experiment_id):
                continue  # a call says itself where it stands, and is kept whatever it says
            into.add_span(span, experiment_id)

    def _find(self, spans: list[SpanPart], pieces: Sequence[Piece]) -> _Found:
        run_ids = {made.run_id for made in pieces if made.run_id is not None}
        trace_ids = {f"tr-{span.place.root_id}" for span in spans}
        traces = self._experiment_ids("trace_info", "request_id", sorted(trace_ids))
        return _Found(
            runs=self._experiment_ids("runs", "run_uuid", sorted(run_ids)),
            traces={trace_id[3:]: experiment for trace_id, experiment in traces.items()},
        )

    def _experiment_ids(self, table: str, key: str, ids: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(ids), SOME):
            some = ids[start : start + SOME]
            marks = ", ".join([self._writer.mark] * len(some))
            self._cursor.execute(
                f"SELECT {key}, experiment_id FROM {table} WHERE {key} IN ({marks})", some
            )
            found.update((row[0], int(row[1])) for row in self._cursor)
        return found

    def _unknown_runs(self, found: _Found, pieces: Sequence[Piece]) -> list[Piece]:
        """Jobs that something is logged on and that are not there, where it is known where to.

        Two processes that log on one run are shipped by themselves, in any order.
        """
        return [
            unknown_job(made.run_id, made.experiment, made.record.start_ns)._replace(trace=None)
            for made in pieces
            if made.run_id is not None and made.experiment and made.run_id not in found.runs
        ]

    def _unknown_traces(self, found: _Found, spans: list[SpanPart]) -> list[Piece]:
        return [
            unknown_job(span.place.root_id, span.place.experiment, span.start_ns)
            for span in spans
            if span.place.experiment and span.place.root_id not in found.traces
        ]

    def _check(self, what: str, id_: str, made: Piece, found: dict[str, int]) -> None:
        if id_ not in found:
            raise Unplaced(f"there is no {what} {id_} that it could belong to")
        experiment = self._experiments.get(made.experiment or "")
        if experiment is not None and experiment.id != found[id_]:
            raise Unplaced(f"{what} {id_} is not in experiment {made.experiment}")
