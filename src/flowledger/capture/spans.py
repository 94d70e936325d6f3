"""Spans: steps in the trace of the job or call around them."""

import time
from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, Self

import msgspec

from flowledger import records
from flowledger.capture import recorder
from flowledger.capture.context import Context, Pending, carried, leave, told, within
from flowledger.capture.freezing import freeze_fields
from flowledger.capture.recorder import Recorder
from flowledger.capture.runs import guarded, keep
from flowledger.records import Outcome, Place, new_id

__all__ = ["Span", "span"]


def span(
    name: str,
    span_type: str = "UNKNOWN",
    attributes: Mapping[str, Any] | None = None,
    inputs: Any = None,
) -> "Span":
    """A step in the trace of the job or call around: `with flowledger.span("fetch") as span:`.

    Spans nest, across threads and tasks too. What is raised inside marks the span and is raised
    again. With neither job nor call around, the span has a trace of its own.

    Args:
        name: what is done.
        span_type: one of MLflow's (`RETRIEVER`, `TOOL`, `CHAIN`, ...), or your own.
        attributes: whatever else is to be seen in the trace.
        inputs: what goes in; what comes out is told by `set_outputs`.
    """
    return Span(name, span_type, attributes, inputs)


class Span:
    """A step under way; `id` names it. Made by `flowledger.span`."""

    def __init__(
        self, name: str, span_type: str, attributes: Mapping[str, Any] | None, inputs: Any
    ) -> None:
        self.id = new_id()
        self._name = name
        self._span_type = span_type
        self._attributes = dict(attributes or {})
        self.set_inputs(inputs)
        self._outputs: Any = None
        self._token: Token[Context] | None = None
        self._pending = Pending(self.id, 0, 0)
        self._outer: Context | None = None

    def set_inputs(self, inputs: Any) -> None:
        """Say what goes in."""
        self._inputs = freeze_fields({"inputs": inputs}, []).get("inputs")

    def set_outputs(self, outputs: Any) -> None:
        """Say what came out."""
        self._outputs = outputs

    def set_attribute(self, key: str, value: Any) -> None:
        """Say something else about the step."""
        self._attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Say several other things about the step."""
        self._attributes.update(attributes)

    def __enter__(self) -> Self:
        if self._outer is not None:
            self.id = new_id()  # begun once more: another span
        self._pending = Pending(self.id, time.time_ns(), time.perf_counter_ns())
        guarded(self._begin)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        duration = time.perf_counter_ns() - self._pending.started
        if self._token is not None:
            leave(self._token)
            self._token = None
            guarded(lambda active: self._end(active, duration, error))

    def _begin(self, active: Recorder) -> None:
        outer = self._outer = carried.get()
        place, late = self._place(outer)
        inside = (
            Place(root_id=self.id, parent_id=self.id) if place is None else within(place, self.id)
        )
        self._token = carried.set(msgspec.structs.replace(outer, place=inside, late=late))

    def _place(self, outer: Context) -> tuple[Place | None, Pending | None]:
        """Where in a trace we are, and who takes what must be stored after the trace's root."""
        if outer.place is not None:
            return outer.place, outer.late
        if outer.parent is not None:
            call = outer.parent
            return Place(root_id=call.id, parent_id=call.id), call
        return None, self._pending

    def _end(self, active: Recorder, duration_ns: int, error: BaseException | None) -> None:
        outer = self._outer or Context()
        place, late = self._place(outer)
        actor = active.placed(outer.actor)
        alone = place is None
        record = records.Span(
            id=self.id,
            start_ns=self._pending.start_ns,
            duration_ns=duration_ns,
            name=told(self._name),
            span_type=told(self._span_type),
            place=place,
            experiment=self._experiment(active, outer) if alone else None,
            actor=actor,
            inputs=self._inputs,
            outputs=self._outputs,
            attributes=self._attributes,
            outcome=Outcome() if error is None else recorder.failure(error),
        )
        keep(active, record, None if alone else late)
        if alone:
            self._pending.recorded(active.keep)

    def _experiment(self, active: Recorder, outer: Context) -> str | None:
        actor, start_ns = active.placed(outer.actor), self._pending.start_ns
        return outer.experiment or active.experiment_of(
            outer.feature, actor, start_ns, told(self._name)
        )
