"""Spans of OpenTelemetry's own SDK, in this process, become calls."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

import flowledger
from flowledger.integrations.otel import MOST_OPEN, FlowledgerSpanProcessor
from flowledger.testing import capture_calls
from tests.test_genai_spans import CURRENT


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    """A tracer whose provider has our processor."""
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(FlowledgerSpanProcessor())
    yield provider.get_tracer("test")
    provider.shutdown()


def ask(tracer: Tracer, **attributes: Any) -> str:
    with tracer.start_as_current_span("chat gpt-4o", attributes={**CURRENT, **attributes}) as span:
        return f"{span.get_span_context().span_id:016x}"


def test_a_span_of_a_models_call_is_recorded_with_its_times(tracer: Tracer) -> None:
    with capture_calls() as calls:
        span = tracer.start_span("chat gpt-4o", attributes=CURRENT, start_time=10**18)
        span.end(end_time=10**18 + 5_000_000)
    [call] = calls
    assert (10**18, 5_000_000) == (call.start_ns, call.duration_ns)
    assert ("Ho", "gpt-4o-2024-08-06", 9) == (call.response, call.model, call.usage.input_tokens)
    assert ("shop", "shop") == (call.feature, call.experiment)


def test_other_spans_are_left_alone(tracer: Tracer) -> None:
    with capture_calls() as calls, tracer.start_as_current_span("GET /"):
        pass
    assert [] == calls


def test_who_asked_is_as_it_was_when_the_span_began(tracer: Tracer) -> None:
    with capture_calls() as calls:
        with flowledger.context(user_id="ana", session_id="s-0", feature="search"):
            span = tracer.start_span("chat", attributes=CURRENT)
        ending = threading.Thread(target=span.end)
        ending.start()
        ending.join()
    [call] = calls
    assert ("ana", "s-1", "search") == (call.actor.user_id, call.actor.session_id, call.feature)


def test_a_span_in_a_tracked_function_is_its_inner_call(tracer: Tracer) -> None:
    with capture_calls() as calls:
        flowledger.track(lambda: ask(tracer))()
    inner, outer = calls
    assert (outer.id, 1, 0) == (inner.parent_id, outer.inner_calls, inner.inner_calls)


def test_a_span_in_a_span_of_a_call_is_the_one_that_counts(tracer: Tracer) -> None:
    with (
        capture_calls() as calls,
        tracer.start_as_current_span("langchain", attributes=CURRENT),
    ):
        ask(tracer)
    inner, outer = calls
    assert (outer.id, 1) == (inner.parent_id, outer.inner_calls)
    assert (9, None) == (inner.usage.input_tokens, outer.usage.input_tokens)


def test_what_a_span_raises_is_the_calls_failure(tracer: Tracer) -> None:
    with (
        capture_calls() as calls,
        pytest.raises(ValueError, match="bad"),
        tracer.start_as_current_span("chat", attributes=CURRENT),
    ):
        raise ValueError("bad")
    [call] = calls
    assert (False, "ValueError") == (call.outcome.success, call.outcome.error_type)
    assert "bad" in (call.outcome.message or "")


def test_a_switch_in_the_environment_records_nothing(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWLEDGER_ENABLED", "false")
    with capture_calls() as calls:
        ask(tracer)
    assert [] == calls


def test_spans_that_never_end_push_out_the_oldest(tracer: Tracer) -> None:
    processor = FlowledgerSpanProcessor()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    left = [provider.get_tracer("t").start_span("left") for _ in range(MOST_OPEN + 10)]
    assert MOST_OPEN == len(processor._open)
    with capture_calls() as calls:
        left[0].set_attributes(CURRENT)
        left[0].end()
    assert 1 == len(calls)
