"""What happened around and inside a call, put together from its trace, its job's, and its calls."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec

from flowledger.questions.rows import CallRow, RecentCall, Span, Step, StoredCall

__all__ = ["Steps"]

MOST_STEPS = 200
MOST_LEVELS = 8
ROOT_TAG = "mlflow.rootRunId"
SPAN_ID = slice(16, None)  # a record's span has the random half of its id

Node = tuple[str, str | None, Step]  # its own key, that of what is around it


class Steps:
    """Asks for the steps around a call, and puts them in order.

    Args:
        fill: asks one named question: its row, its name, what fills its holes, its values.
        value: asks for one value.
        readable: ids of the experiments that may be seen at all; None is every one.
    """

    def __init__(
        self,
        fill: Callable[..., list[Any]],
        value: Callable[..., Any],
        readable: Collection[int] | None,
    ) -> None:
        self._fill = fill
        self._value = value
        self._readable = readable

    def of(self, call: StoredCall) -> list[Step]:
        """The steps of a waterfall, each after what it is in, in the order of time."""
        traced = self._of_job(call)
        if traced:
            return _in_order(traced)
        outermost = self._outermost(call)
        nodes = [_of_call(outermost)]
        level = [outermost]
        for _ in range(MOST_LEVELS):
            inside = [one for outer in level for one in self._inside(outer)]
            nodes += [_of_call(one) for one in inside]
            if not inside or len(nodes) >= MOST_STEPS:
                break
            level = inside
        return _in_order([*nodes, *self._own_spans(call)])

    def _of_job(self, call: StoredCall) -> list[Node]:
        """The spans of the job's trace that the call stands in, none where it stands in none."""
        if call.parent_id is None:
            return []
        root = self._value("run_tag", run_id=call.parent_id, key=ROOT_TAG) or call.parent_id
        spans = self._spans(root)
        there = {span.span_id for span in spans}
        if call.id[SPAN_ID] not in there:
            return []
        first_ms = min(span.start_ns for span in spans) // 10**6
        last_ms = max(span.end_ns or span.start_ns for span in spans) // 10**6
        calls = {call.id[SPAN_ID]: call.id}
        for around in {call.parent_id, root}:
            inside = self._calls(around, first_ms, last_ms)
            calls |= {one.id[SPAN_ID]: one.id for one in inside}
        return [_of_span(span, calls.get(span.span_id)) for span in spans]

    def _own_spans(self, call: StoredCall) -> list[Node]:
        """Spans that were opened inside the call; one of its trace is the call itself."""
        own = call.id[SPAN_ID]
        return [_of_span(span, None) for span in self._spans(call.id) if span.span_id != own]

    def _outermost(self, call: StoredCall) -> RecentCall:
        found = _recent(call)
        for _ in range(MOST_LEVELS):
            around = self._fill(CallRow, "call_by_id", {}, {"id": found.parent_id or ""})
            if not around or not self._may_read(around[0]):
                break
            found = _recent(around[0])
        return found

    def _inside(self, outer: RecentCall) -> list[RecentCall]:
        return self._calls(outer.id, outer.start_ms, outer.start_ms + round(outer.latency_ms) + 1)

    def _calls(self, around: str, first_ms: int, last_ms: int) -> list[RecentCall]:
        at = {"id": around, "from_ms": first_ms, "beyond_ms": last_ms, "limit": MOST_STEPS}
        return self._fill(RecentCall, "calls_inside", self._holes, at)

    def _spans(self, root_id: str) -> list[Span]:
        at = {"trace_id": f"tr-{root_id}", "limit": MOST_STEPS}
        return self._fill(Span, "spans_of_trace", self._holes, at)

    @property
    def _holes(self) -> dict[str, str]:
        if self._readable is None:
            return {"readable": "1 = 1"}
        return {"readable": f"experiment_id IN ({', '.join(map(str, self._readable)) or 'NULL'})"}

    def _may_read(self, row: CallRow) -> bool:
        return self._readable is None or row.experiment_id in self._readable


def _recent(call: CallRow | StoredCall) -> RecentCall:
    return RecentCall(**{name: getattr(call, name) for name in RecentCall.__struct_fields__})


def _of_call(call: RecentCall) -> Node:
    step = Step(
        name=call.operation or call.kind,
        depth=0,
        start_ms=call.start_ms,
        duration_ms=call.latency_ms,
        success=call.success,
        call_id=call.id,
    )
    return call.id[SPAN_ID], call.parent_id and call.parent_id[SPAN_ID], step


def _of_span(span: Span, call_id: str | None) -> Node:
    end_ns = span.end_ns or span.start_ns
    step = Step(
        name=span.name,
        depth=0,
        start_ms=span.start_ns / 1e6,
        duration_ms=(end_ns - span.start_ns) / 1e6,
        success=span.status != "ERROR",
        call_id=call_id,
    )
    return span.span_id, span.parent_span_id, step


def _in_order(nodes: list[Node]) -> list[Step]:
    kept = {key: step for key, _, step in nodes}
    inside = defaultdict(list)
    for key, around, step in nodes:
        inside[around if around in kept and around != key else None].append((step.start_ms, key))

    def walk(around: str | None, depth: int) -> Iterator[Step]:
        for _, key in sorted(inside.pop(around, ())):
            yield msgspec.structs.replace(kept[key], depth=depth)
            yield from walk(key, depth + 1)

    return list(walk(None, 0))[:MOST_STEPS]
