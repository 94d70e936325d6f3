"""Recording the GenAI spans of this process: a span processor for OpenTelemetry's SDK."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, StatusCode

from flowledger import config, logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.capture import recorder
from flowledger.capture.context import Pending, carried
from flowledger.integrations.genai import GenAISpan, asks_a_model, call_id, read_span
from flowledger.records import Actor, Call, Usage

__all__ = ["FlowledgerSpanProcessor"]

MOST_OPEN = 10_000
GIVEN_APART = ("id", "start_ns", "actor", "inner_calls")


class FlowledgerSpanProcessor(SpanProcessor):
    """Records each finished span of a model's call in the ledger; every other span is left alone.

    Add it beside the exporters you have: `provider.add_span_processor(FlowledgerSpanProcessor())`.
    The context of flowledger in force when a span starts says who asked and why, wherever the span
    itself does not. Use it or `flowledger.wrap` for one client: both would count its calls twice.
    """

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}

    def on_start(self, span: Span, parent_context: otel_context.Context | None = None) -> None:
        """Keep who asks and why until the span ends, which may be in another task or thread."""
        with _never_raising():
            self._open[_named(span).span_id] = _Open(span)
            if len(self._open) > MOST_OPEN:  # of spans that never end, the oldest goes
                self._open.pop(next(iter(self._open)), None)

    def on_end(self, span: ReadableSpan) -> None:
        """Record the span when it is about a model's call."""
        with _never_raising():
            opened = self._open.pop(_named(span).span_id, None) or _Open(span)
            if config.switched_on() and (call := read_span(_seen(span))) is not None:
                outer = None if span.parent is None else self._open.get(span.parent.span_id)
                _record(call, opened, outer)

    def shutdown(self) -> None:
        """Nothing waits here: the journal has every call that ended."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here; `flowledger.flush` waits for the store."""
        return True


class _Open:
    """A span under way, with the context in force when it began."""

    __slots__ = ("context", "pending", "span")

    def __init__(self, span: ReadableSpan) -> None:
        about, start_ns = _named(span), span.start_time or 0
        id_ = call_id(f"{about.trace_id:032x}", f"{about.span_id:016x}", start_ns)
        self.span = span
        self.context = carried.get()
        self.pending = Pending(id_, start_ns, 0)


@contextmanager
def _never_raising() -> Iterator[None]:
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - no fault of ours may reach the application
        reraise_asynchronous(exc)
        logs.warn("otel", "a span is not recorded: %s", type(exc).__name__)


def _record(call: Call, opened: _Open, outer: _Open | None) -> None:
    """Record a call in its own context, and as part of the call it was made in."""
    context = opened.context
    if outer is not None and asks_a_model(outer.span.attributes or {}):
        context = msgspec.structs.replace(context, parent=outer.pending)
    context = msgspec.structs.replace(context, actor=_both(context.actor, call.actor))
    fields = {f: v for f in call.__struct_fields__ if (v := getattr(call, f)) != _DEFAULTS[f]}
    seen = {name: value for name, value in fields.items() if name not in GIVEN_APART}
    seen["duration_ns"] = call.duration_ns
    seen["feature"] = call.feature or context.feature or call.tags.get("service_name")
    seen["usage"] = Usage() if opened.pending.counted else call.usage
    token = carried.set(context)
    try:
        recorder.finish(opened.pending, lambda: seen)
    finally:
        carried.reset(token)


_DEFAULTS = {f.name: getattr(Call(id=""), f.name) for f in msgspec.structs.fields(Call)}


def _both(actor: Actor, told: Actor) -> Actor:
    """What the span tells of who asks, over what the context does."""
    given = {k: v for k, v in msgspec.structs.asdict(told).items() if v is not None}
    return msgspec.structs.replace(actor, **given)


def _named(span: ReadableSpan) -> SpanContext:
    return span.get_span_context() or INVALID_SPAN_CONTEXT


def _seen(span: ReadableSpan) -> GenAISpan:
    about, status = _named(span), span.status
    return GenAISpan(
        trace_id=f"{about.trace_id:032x}",
        span_id=f"{about.span_id:016x}",
        parent_id=None if span.parent is None else f"{span.parent.span_id:016x}",
        name=span.name,
        start_ns=span.start_time or 0,
        end_ns=span.end_time or span.start_time or 0,
        attributes=span.attributes or {},
        events=[(event.name, event.attributes or {}) for event in span.events],
        resource=span.resource.attributes,
        failed=status.status_code is StatusCode.ERROR,
        message=status.description,
    )
