"""What questions answer: frozen rows, typed by name. Times are Unix ms, money is US dollars.

None is an unknown number or price, never 0.
"""

from typing import Any

import msgspec

from flowledger.records import ToolCall

__all__ = [
    "CallRow",
    "Content",
    "ErrorCount",
    "FeatureNumbers",
    "LedgerSize",
    "Losses",
    "RecentCall",
    "StoredCall",
    "Totals",
]


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """What every row shares."""


class RecentCall(_Row, frozen=True):
    """A call in a list; `parent_id` is the call or job it was made in."""

    id: str
    parent_id: str | None
    start_ms: int
    feature: str | None
    operation: str
    kind: str
    provider: str | None
    model: str | None
    user_id: str | None
    session_id: str | None
    persona_id: str | None
    total_tokens: int | None
    cost_usd: float | None
    latency_ms: float
    success: bool
    error_type: str | None


class _CallColumns(_Row, frozen=True):
    """The columns that describe one call."""

    id: str
    producer_id: str
    seq: int
    experiment_id: int
    parent_id: str | None
    inner_calls: int
    start_ms: int
    received_ms: int
    latency_ms: float
    time_to_first_token_ms: float | None
    kind: str
    operation: str
    feature: str | None
    function: str | None
    provider: str | None
    model: str | None
    model_asked: str | None
    user_id: str | None
    session_id: str | None
    persona_id: str | None
    user_role: str | None
    audit_reason: str | None
    environment: str | None
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cached_input_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    input_audio_tokens: int | None
    output_audio_tokens: int | None
    images: int | None
    audio_seconds: float | None
    usage_source: str | None
    cost_usd: float | None
    input_cost_usd: float | None
    output_cost_usd: float | None
    success: bool
    error_type: str | None
    error_message: str | None
    prompt_name: str | None
    prompt_version: str | None
    prompt_hash: str | None
    process_host: str | None
    process_pid: int | None
    process_source: str | None


class CallRow(_CallColumns, frozen=True):
    """One call as its row has it; `details` and `content` are JSON, `content` may be in a trace."""

    details: str
    content: str | None


class Content(_Row, frozen=True):
    """What was asked and answered, as far as it was kept; `stack` is a failed call's."""

    prompt: Any = None
    response: Any = None
    tool_calls: list[ToolCall] = msgspec.field(default_factory=list)
    stack: str | None = None


class StoredCall(_CallColumns, frozen=True):
    """Everything kept about one call.

    `trace_id` is its trace in MLflow, None where it has none. `experiment` is None when that was
    removed. `unknown` holds what a newer flowledger wrote and this one does not know.
    """

    experiment: str | None
    trace_id: str | None
    content: Content
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    tags: dict[str, Any] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)
    unknown: dict[str, Any] = msgspec.field(default_factory=dict)


class _Numbers(_Row, frozen=True):
    """Sums over calls; `unpriced` of them cost something that is not in `cost_usd`."""

    calls: int
    failed: int
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cost_usd: float | None
    unpriced: int
    p50_ms: float | None
    p95_ms: float | None


class FeatureNumbers(_Numbers, frozen=True):
    """The numbers of one feature; None is what no feature was named for."""

    feature: str | None


class Totals(_Numbers, frozen=True):
    """The numbers of all calls, and when the first and the last of them began."""

    first_ms: int | None
    last_ms: int | None


class ErrorCount(_Row, frozen=True):
    """How many calls failed with one type of error."""

    error_type: str | None
    calls: int


class LedgerSize(_Row, frozen=True):
    """How many records there are, and when the last one began."""

    records: int
    last_ms: int | None


class Losses(_Row, frozen=True):
    """Records that so many processes counted but could not keep."""

    dropped: int
    processes: int
