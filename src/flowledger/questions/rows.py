"""What questions answer: frozen rows, typed by name. Times are Unix ms, money is US dollars.

None is an unknown number or price, never 0.
"""

import math
from typing import Any, Generic, TypeVar

import msgspec

from flowledger.records import ToolCall

__all__ = [
    "CallRow",
    "Chain",
    "ChainChange",
    "Content",
    "EveryCall",
    "Experiment",
    "FailedCall",
    "FeatureOf",
    "Found",
    "Lag",
    "LedgerSize",
    "Losses",
    "Page",
    "Percentiles",
    "Period",
    "PeriodSlice",
    "PromptSlice",
    "ReceivedCall",
    "RecentCall",
    "Run",
    "Session",
    "Slice",
    "Span",
    "Step",
    "StoredCall",
    "Sums",
]


R = TypeVar("R")


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


class ReceivedCall(RecentCall, frozen=True):
    """A call in a list of what was stored last."""

    received_ms: int


class Found(RecentCall, frozen=True):
    """A call that may have the text that is searched for, and everything of it that can."""

    error_message: str | None
    content: str | None
    span: str | None


class Lag(_Row, frozen=True):
    """How long after their end so many calls were stored."""

    calls: int
    mean_ms: float | None
    most_ms: float | None


class Chain(_Row, frozen=True):
    """The chain of evidence: how many links, when the last one was added, and its hash."""

    links: int
    last_ms: int | None
    head: str | None


class ChainChange(_Row, frozen=True):
    """A link that changed what was stored before; `note` says who did it and why."""

    number: int
    kind: str
    at_ms: int
    records: int
    note: str


class Span(_Row, frozen=True):
    """A span of MLflow's; one without an end is under way. `status` is `OK`, `ERROR` or `UNSET`."""

    span_id: str
    parent_span_id: str | None
    name: str
    status: str
    start_ns: int
    end_ns: int | None


class Step(_Row, frozen=True):
    """A bar of a waterfall: what happened in a trace, and how deep inside other things.

    `call_id` is None for what is no call.
    """

    name: str
    depth: int
    start_ms: float
    duration_ms: float
    success: bool
    call_id: str | None


class _CallFacts(_Row, frozen=True):
    """What describes one call."""

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
    cache_write_1h_tokens: int | None
    reasoning_tokens: int | None
    input_audio_tokens: int | None
    output_audio_tokens: int | None
    input_image_tokens: int | None
    images: int | None
    audio_seconds: float | None
    input_characters: int | None
    usage_source: str | None
    cost_usd: float | None
    input_cost_usd: float | None
    output_cost_usd: float | None
    cost_source: str | None
    success: bool
    error_type: str | None
    error_message: str | None
    prompt_name: str | None
    prompt_version: str | None
    prompt_hash: str | None


class EveryCall(_CallFacts, frozen=True):
    """One call as an export reads it; `span` is its trace's one span, as JSON."""

    details: str
    content: str | None
    span: str | None


class _CallColumns(_CallFacts, frozen=True):
    """One call, and the process that made it."""

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


class Sums(_Row, frozen=True):
    """What calls add up to; averages and rates follow from it.

    `counted` calls have token counts, `priced` ones a cost, `unpriced` ones cost something that is
    not in it. `estimated` calls have a cost that rests on estimated tokens: `cost_usd` includes it,
    and `estimated_cost_usd` is its sum. Scores are the caller's own metrics. `first_ms` and
    `last_ms` are when the first and the last of the calls began.
    """

    calls: int
    failed: int
    counted: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    priced: int
    unpriced: int
    cost_usd: float
    estimated: int
    estimated_cost_usd: float
    latency_ms: float
    latency_squared: float
    confidences: int
    confidence: float
    confidence_squared: float
    template_matches: int
    template_match: float
    first_ms: int | None
    last_ms: int | None

    @property
    def success_rate(self) -> float:
        """Per cent of the calls that worked; 0 without calls."""
        return 100 * _ratio(self.calls - self.failed, self.calls)

    @property
    def error_rate(self) -> float:
        """Per cent of the calls that failed; 0 without calls."""
        return 100 * _ratio(self.failed, self.calls)

    @property
    def mean_latency_ms(self) -> float:
        """The average latency."""
        return _ratio(self.latency_ms, self.calls)

    @property
    def latency_std_ms(self) -> float:
        """The sample standard deviation of latencies."""
        return _deviation(self.calls, self.latency_ms, self.latency_squared)

    @property
    def mean_confidence(self) -> float:
        """The average of the confidences that were given."""
        return _ratio(self.confidence, self.confidences)

    @property
    def confidence_std(self) -> float:
        """The sample standard deviation of confidences."""
        return _deviation(self.confidences, self.confidence, self.confidence_squared)

    @property
    def template_match_rate(self) -> float:
        """The average of the template match rates that were given, 0 to 1."""
        return _ratio(self.template_match, self.template_matches)

    @property
    def known_cost_usd(self) -> float | None:
        """The cost, or None when that of no call is known."""
        return self.cost_usd if self.priced else None

    @property
    def spend_usd(self) -> float | None:
        """The cost, or None when there was one and nobody knows any of it."""
        return None if self.unpriced and not self.priced else self.cost_usd

    @property
    def cost_per_call_usd(self) -> float:
        """The average cost of the calls whose price is known."""
        return _ratio(self.cost_usd, self.priced)


class Slice(Sums, frozen=True):
    """The sums of the calls that have one value of a dimension; None is no value."""

    value: str | None


class PromptSlice(Slice, frozen=True):
    """The sums of one prompt version, and the version of DSPy it last ran with."""

    dspy_version: str | None


class Period(Sums, frozen=True):
    """The sums of one span of time, which begins at `start_ms`."""

    start_ms: int


class PeriodSlice(Period, frozen=True):
    """The sums of one span of time that have one value of a dimension; None is no value."""

    value: str | None


class Percentiles(_Row, frozen=True):
    """Latencies in ms that so many per cent of calls do not exceed, within 2 %."""

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


class FailedCall(_Row, frozen=True):
    """A call that failed, what was raised and where in the application."""

    id: str
    start_ms: int
    error_type: str | None
    error_message: str | None
    feature: str | None
    model: str | None
    user_id: str | None
    user_role: str | None
    module: str | None
    tab: str | None


class Run(_Row, frozen=True):
    """A call with what a list of runs shows of it; `details` is JSON."""

    id: str
    experiment_id: int
    start_ms: int
    latency_ms: float
    operation: str
    feature: str | None
    provider: str | None
    model: str | None
    user_id: str | None
    session_id: str | None
    persona_id: str | None
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cost_usd: float | None
    success: bool
    error_type: str | None
    confidence: float | None
    details: str


class Session(Sums, frozen=True):
    """The sums over the calls of one session, and how many users they name.

    `user_id` is None where these are none or several.
    """

    session_id: str
    user_id: str | None
    users: int


class Page(msgspec.Struct, Generic[R], frozen=True):
    """Some rows, and the token that gets the next ones; None at the end."""

    rows: list[R]
    next: str | None


class FeatureOf(_Row, frozen=True):
    """A feature that has had calls in an experiment."""

    feature: str | None
    experiment_id: int


class Experiment(_Row, frozen=True):
    """An MLflow experiment; `lifecycle_stage` is `active` or `deleted`."""

    experiment_id: int
    name: str
    lifecycle_stage: str


class LedgerSize(_Row, frozen=True):
    """How many records there are, and when the last one began."""

    records: int
    last_ms: int | None


class Losses(_Row, frozen=True):
    """Records that so many processes counted but could not keep."""

    dropped: int
    processes: int


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _deviation(count: int, total: float, squared: float) -> float:
    if count < 2:
        return 0.0
    return math.sqrt(max(0.0, squared - total * total / count) / (count - 1))
