"""Times that an application or a provider gives are stored as they were given."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import flowledger
from flowledger.integrations.genai import GenAISpan, read_span
from flowledger.records import Call, unix_ns
from flowledger.testing import capture_calls

MILLISECONDS = st.integers(946_684_800_000, 4_102_444_800_000)  # the years 2000 to 2099
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def recorded(**fields: Any) -> Call:
    """The call as it was recorded."""
    with capture_calls() as calls:
        flowledger.record(**fields)
    return calls[0]


@given(ms=MILLISECONDS, hours=st.integers(-12, 14))
def test_a_start_given_to_the_millisecond_is_recorded_so(ms: int, hours: int) -> None:
    moment = (EPOCH + timedelta(milliseconds=ms)).astimezone(timezone(timedelta(hours=hours)))
    starts = [recorded(started=given).start_ns for given in (moment, ms / 1000)]
    assert [ms * 1_000_000] * 2 == starts


@given(us=st.integers(0, 10**9))
def test_a_latency_given_to_the_microsecond_is_recorded_so(us: int) -> None:
    call = recorded(latency_ms=us / 1000, time_to_first_token_ms=us / 1000)
    assert (us * 1000, us * 1000) == (call.duration_ns, call.first_token_ns)


@given(us=st.integers(0, 10**9))
def test_a_span_s_first_token_is_read_to_the_microsecond(us: int) -> None:
    span = GenAISpan(
        trace_id="1" * 32,
        span_id="2" * 16,
        parent_id=None,
        name="chat",
        start_ns=1_764_590_000 * 10**9,
        end_ns=1_764_590_900 * 10**9,
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.server.time_to_first_token": us / 1_000_000,
        },
    )
    call = read_span(span)
    assert call is not None
    assert us * 1000 == call.first_token_ns


@given(us=st.integers(946_684_800_000_000, 4_102_444_800_000_000))
def test_seconds_of_a_provider_are_read_to_the_microsecond(us: int) -> None:
    assert us * 1000 == unix_ns((EPOCH + timedelta(microseconds=us)).timestamp())
