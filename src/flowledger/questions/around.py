"""What stands around a call: the jobs, stages and calls it was made in, and what was made in it."""

import math
from typing import Any

import msgspec

from flowledger.questions import content
from flowledger.questions.ledger import Ledger
from flowledger.questions.rows import RecentCall, StoredCall

__all__ = ["Around", "Enclosing", "SpanOf", "around"]

DEEPEST = 20
MOST_SPANS, MOST_CALLS, MOST_SOURCES = 500, 500, 20
RETRIEVER = "RETRIEVER"


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    parent_id: str | None
    name: str | None
    success: bool


class Enclosing(_Place, frozen=True, kw_only=True):
    """What a call was made in; `kind` is `call`, `stage` or `job`."""

    kind: str


class SpanOf(msgspec.Struct, frozen=True, kw_only=True):
    """A span of the call's trace, which is its job's; times are Unix nanoseconds."""

    span_id: str
    parent_span_id: str | None
    name: str
    type: str | None
    status: str
    start_ns: int
    end_ns: int | None


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """What stands around a call.

    part_of: what it was made in, the innermost first.
    spans: of its job's trace, or of its own, in the order in which they began; 500 at most.
    sources: what the retrievers among them returned.
    calls_inside: those that were made in it; 500 at most.
    """

    part_of: list[Enclosing]
    spans: list[SpanOf]
    sources: list[Any]
    calls_inside: list[RecentCall]


def around(ledger: Ledger, call: StoredCall) -> Around:
    """What is known around a call.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    part_of = _part_of(ledger, call.parent_id)
    trace_ids = [f"tr-{one.id}" for one in reversed(part_of)] + [f"tr-{call.id}"]
    spans: list[SpanOf] = []
    for trace_id in trace_ids:
        spans = ledger.ask("spans_of_trace", SpanOf, trace_id=trace_id, limit=MOST_SPANS)
        if any(span.span_id == call.id[16:] for span in spans):
            break
    # Of spans that begin together the outer one ends last.
    spans.sort(key=lambda span: (span.start_ns, -(span.end_ns or math.inf)))
    inside = ledger.ask("calls_inside", RecentCall, id=call.id, limit=MOST_CALLS)
    return Around(
        part_of=part_of,
        spans=spans,
        sources=_sources(ledger, trace_id, spans),
        calls_inside=inside if call.inner_calls else [],
    )


def _part_of(ledger: Ledger, parent_id: str | None) -> list[Enclosing]:
    found: list[Enclosing] = []
    while parent_id is not None and len(found) < DEEPEST:
        calls = ledger.ask("call_around", _Place, id=parent_id)
        places = calls or ledger.ask("run_around", _Place, id=parent_id)
        if not places:
            break
        parent_id = places[0].parent_id
        kind = "call" if calls else "job" if parent_id is None else "stage"
        found.append(Enclosing(**msgspec.structs.asdict(places[0]), kind=kind))
    return found


def _sources(ledger: Ledger, trace_id: str, spans: list[SpanOf]) -> list[Any]:
    retrievers = [span for span in spans if span.type == RETRIEVER][:MOST_SOURCES]
    texts = (ledger.span(trace_id, span.span_id) for span in retrievers)
    return [content.of_span(text).response for text in texts if text is not None]
