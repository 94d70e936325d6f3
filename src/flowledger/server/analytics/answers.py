"""What the analytics API answers. Rates are per cent, money is US dollars, times are ISO 8601 UTC.

The names of fields are those of `intent_detection.md`, with what it lacks beside them.
"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from flowledger.questions import FailedCall, Percentiles, Period, PromptSlice, Slice, Sums
from flowledger.questions.tracking import time_text

__all__ = [
    "Change",
    "Errors",
    "ModelComparison",
    "Number",
    "Overview",
    "PromptAnalysis",
    "Rate",
    "Recreated",
    "Report",
    "Speed",
    "Trends",
    "now_text",
]


def _without_noise(value: float) -> float:
    """Without the last digits, which are of the order in which floats were added."""
    return float(f"{value:.12g}")


Number = Annotated[float, AfterValidator(_without_noise)]
Rate = Annotated[Number, Field(ge=0, le=100, description="Per cent.")]
# Of five digits, so that what rounding adds to the 1.98 % of a bucket stays within 2 %.
Speed = Annotated[float, AfterValidator(lambda value: float(f"{value:.5g}"))]
Count = Annotated[int, Field(ge=0)]
Truncated = Annotated[
    bool, Field(description="Whether a list here ends after its 10,000 largest values.")
]


class Change(BaseModel):
    """Per cent more or less than in the window before; null where that had none."""

    total_runs: Number | None
    failed_runs: Number | None
    avg_response_time_ms: Number | None
    total_tokens: Number | None
    total_cost_usd: Number | None

    @classmethod
    def between(cls, now: Sums, before: Sums) -> "Change":
        return cls(
            total_runs=_change(now.calls, before.calls),
            failed_runs=_change(now.failed, before.failed),
            avg_response_time_ms=_change(now.mean_latency_ms, before.mean_latency_ms),
            total_tokens=_change(now.total_tokens, before.total_tokens),
            total_cost_usd=_change(now.cost_usd, before.cost_usd),
        )


class Overview(BaseModel):
    """All calls of the window in numbers."""

    period_days: int
    total_runs: Count
    successful_runs: Count
    failed_runs: Count
    success_rate: Rate
    avg_confidence: Number
    avg_response_time_ms: Number
    p50_response_time_ms: Speed | None
    p90_response_time_ms: Speed | None
    p95_response_time_ms: Speed | None
    p99_response_time_ms: Speed | None
    template_match_rate: Number = Field(description="Average of that metric, 0 to 1.")
    intent_distribution: dict[str, int]
    user_role_distribution: dict[str, int]
    module_distribution: dict[str, int]
    truncated: Truncated
    total_tokens: Count
    total_cost_usd: Number
    unpriced_runs: Count = Field(description="Calls whose price nobody knows; not in the cost.")
    estimated_runs: Count = Field(description="Calls whose cost rests on estimated tokens.")
    estimated_cost_usd: Number = Field(description="The cost of these; it is in the cost.")
    change: Change
    generated_at: str


class Trend(BaseModel):
    """One day, or one hour, of the window; those without calls are left out."""

    date: str = Field(examples=["2026-11-20"])
    request_count: Count
    avg_confidence: Number
    confidence_std: Number
    avg_response_time_ms: Number
    response_time_std: Number
    template_match_rate: Number
    total_tokens: Count
    total_cost_usd: Number
    error_rate: Rate

    @classmethod
    def of(cls, row: Period, hourly: bool) -> "Trend":
        moment = datetime.fromtimestamp(row.start_ms / 1000, UTC)
        return cls(
            date=f"{moment:%Y-%m-%dT%H:00:00Z}" if hourly else f"{moment:%Y-%m-%d}",
            request_count=row.calls,
            avg_confidence=row.mean_confidence,
            confidence_std=row.confidence_std,
            avg_response_time_ms=row.mean_latency_ms,
            response_time_std=row.latency_std_ms,
            template_match_rate=row.template_match_rate,
            total_tokens=row.total_tokens,
            total_cost_usd=row.cost_usd,
            error_rate=row.error_rate,
        )


class Trends(BaseModel):
    """The window day by day, or hour by hour."""

    period_days: int
    trends: list[Trend]


class RecentError(BaseModel):
    """A call that failed."""

    run_id: str
    timestamp: str
    error_type: str | None
    error_message: str | None
    user_role: str | None
    module: str | None
    tab: str | None
    feature: str | None
    model: str | None
    user_id: str | None

    @classmethod
    def of(cls, row: FailedCall) -> "RecentError":
        return cls(
            run_id=row.id,
            timestamp=time_text(row.start_ms),
            error_type=row.error_type,
            error_message=row.error_message,
            user_role=row.user_role,
            module=row.module,
            tab=row.tab,
            feature=row.feature,
            model=row.model,
            user_id=row.user_id,
        )


class Errors(BaseModel):
    """What failed, by type, with the latest calls that did."""

    period_days: int
    total_errors: Count
    error_rate: Rate
    error_types: dict[str, int]
    truncated: Truncated
    recent_errors: list[RecentError]


class ModelNumbers(BaseModel):
    """The calls of one model."""

    model_name: str
    run_count: Count
    avg_confidence: Number
    confidence_std: Number
    avg_response_time_ms: Number
    response_time_std: Number
    template_match_rate: Number
    success_rate: Rate
    total_tokens: Count
    total_cost_usd: Number
    cost_per_call_usd: Number = Field(description="Over the calls whose price is known.")
    unpriced_runs: Count
    estimated_runs: Count
    estimated_cost_usd: Number
    p50_response_time_ms: Speed | None
    p95_response_time_ms: Speed | None

    @classmethod
    def of(cls, row: Slice, speed: Percentiles) -> "ModelNumbers":
        return cls(
            model_name=row.value or "none",
            run_count=row.calls,
            avg_confidence=row.mean_confidence,
            confidence_std=row.confidence_std,
            avg_response_time_ms=row.mean_latency_ms,
            response_time_std=row.latency_std_ms,
            template_match_rate=row.template_match_rate,
            success_rate=row.success_rate,
            total_tokens=row.total_tokens,
            total_cost_usd=row.cost_usd,
            cost_per_call_usd=row.cost_per_call_usd,
            unpriced_runs=row.unpriced,
            estimated_runs=row.estimated,
            estimated_cost_usd=row.estimated_cost_usd,
            p50_response_time_ms=speed.p50,
            p95_response_time_ms=speed.p95,
        )


class ModelComparison(BaseModel):
    """Models side by side, the most used first."""

    period_days: int
    model_comparison: list[ModelNumbers]
    truncated: Truncated


class PromptNumbers(BaseModel):
    """The calls of one prompt version."""

    prompt_version: str
    run_count: Count
    avg_confidence: Number
    confidence_std: Number
    avg_response_time_ms: Number
    template_match_rate: Number
    success_rate: Rate
    total_cost_usd: Number
    last_used: str
    dspy_version: str | None

    @classmethod
    def of(cls, row: PromptSlice) -> "PromptNumbers":
        return cls(
            prompt_version=row.value or "",
            run_count=row.calls,
            avg_confidence=row.mean_confidence,
            confidence_std=row.confidence_std,
            avg_response_time_ms=row.mean_latency_ms,
            template_match_rate=row.template_match_rate,
            success_rate=row.success_rate,
            total_cost_usd=row.cost_usd,
            last_used=time_text(row.last_ms or 0),
            dspy_version=row.dspy_version,
        )


class PromptAnalysis(BaseModel):
    """Prompt versions, the one used last first."""

    period_days: int
    prompt_analysis: list[PromptNumbers]


class Report(BaseModel):
    """Everything above over the same window."""

    period_days: int
    overview: Overview
    trends: Trends
    errors: Errors
    model_comparison: ModelComparison
    prompt_analysis: PromptAnalysis
    generated_at: str


class Health(BaseModel):
    """Whether the ledger answers, and how much is in it."""

    status: str = Field(examples=["healthy"])
    tracking_uri: str
    experiments: Count
    total_runs: Count
    last_run_at: str | None


class RecreatedExperiment(BaseModel):
    """An experiment that is there now."""

    name: str
    experiment_id: str
    action: str = Field(description="`kept`, `created` or `restored`.")


class Recreated(BaseModel):
    """The experiments that calls go to, all there."""

    status: str = Field(examples=["success"])
    experiments: list[RecreatedExperiment]


def now_text() -> str:
    """Now, as answers write times."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _change(now: float, before: float) -> float | None:
    return 100 * (now - before) / before if before else None
