"""What stands around a call: the jobs, stages and calls it was made in, and what was made in it."""

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec

from flowledger.questions import content
from flowledger.questions.rows import RecentCall, StoredCall
from flowledger.records import Kind

__all__ = ["Around", "Enclosing", "SpanOf", "around"]

Ask: TypeAlias = Callable[..., list[Any]]
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
    sources: what the retrievers among them returned, and those that the call, or the one that it
        was made in, called.
    calls_inside: those that were made in it; 500 at most.
    """

    part_of: list[Enclosing]
    spans: list[SpanOf]
    sources: list[Any]
    calls_inside: list[RecentCall]


def around(
    ask: Ask,
    span: Callable[[str, str], str | None],
    response: Callable[[str], Any],
    call: StoredCall,
) -> Around:
    """What is known around a call.

    Args:
        ask: asks one named question: its name, its row, its values.
        span: a span of a trace, as MLflow's JSON; None where there is none.
        response: what a call was answered, by its id.
        call: in the middle.
    """
    part_of = _part_of(ask, call.parent_id)
    trace_ids = [f"tr-{one.id}" for one in reversed(part_of)] + [f"tr-{call.id}"]
    spans: list[SpanOf] = []
    for trace_id in trace_ids:
        spans = ask("spans_around", SpanOf, trace_id=trace_id, limit=MOST_SPANS)
        if any(one.span_id == call.id[16:] for one in spans):
            break
    # Of spans that begin together the outer one ends last.
    spans.sort(key=lambda one: (one.start_ns, -(one.end_ns or math.inf)))
    inside = _made_in(ask, call.id) if call.inner_calls > 0 else []
    # A chat looks passages up in a call, and asks a model with them in another.
    beside = _made_in(ask, part_of[0].id) if part_of and part_of[0].kind == "call" else []
    looked_up = [*inside, *(one for one in beside if one.start_ms <= call.start_ms)]
    retrievals = [one.id for one in looked_up if one.kind == Kind.RETRIEVAL and one.id != call.id]
    return Around(
        part_of=part_of,
        spans=spans,
        sources=[
            *_sources(span, trace_id, spans),
            *(response(call_id) for call_id in retrievals[:MOST_SOURCES]),
        ],
        calls_inside=inside,
    )


def _made_in(ask: Ask, call_id: str) -> list[RecentCall]:
    return ask("calls_made_in", RecentCall, id=call_id, limit=MOST_CALLS)


def _part_of(ask: Ask, parent_id: str | None) -> list[Enclosing]:
    found: list[Enclosing] = []
    while parent_id is not None and len(found) < DEEPEST:
        calls = ask("call_around", _Place, id=parent_id)
        places = calls or ask("run_around", _Place, id=parent_id)
        if not places:
            break
        parent_id = places[0].parent_id
        kind = "call" if calls else "job" if parent_id is None else "stage"
        found.append(Enclosing(**msgspec.structs.asdict(places[0]), kind=kind))
    return found


def _sources(
    span: Callable[[str, str], str | None], trace_id: str, spans: list[SpanOf]
) -> Iterator[Any]:
    for one in [one for one in spans if one.type == RETRIEVER][:MOST_SOURCES]:
        text = span(trace_id, one.span_id)
        if text is not None:
            yield content.of_span(text).response
