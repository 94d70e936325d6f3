"""`record`: write down a call that already happened."""

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from flowledger.capture import recorder
from flowledger.capture.context import Pending, context, told
from flowledger.records import Kind, Outcome, Prompt, ToolCall, Usage, new_id, unix_ns

__all__ = ["given_outcome", "given_usage", "record"]

ACTOR = ("user_id", "session_id", "persona_id", "user_role", "audit_reason", "environment")


def record(
    *,
    operation: str = "",
    feature: str | None = None,
    kind: str = Kind.CHAT,
    provider: str | None = None,
    model: str | None = None,
    prompt: Any = None,
    response: Any = None,
    usage: Usage | Mapping[str, Any] | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    latency_ms: float | None = None,
    time_to_first_token_ms: float | None = None,
    started: datetime | float | None = None,
    success: bool = True,
    error: BaseException | str | None = None,
    cost_usd: float | None = None,
    settings: Mapping[str, Any] | None = None,
    tool_calls: list[ToolCall] | None = None,
    prompt_name: str | None = None,
    prompt_version: str | None = None,
    prompt_hash: str | None = None,
    experiment: str | None = None,
    function: str | None = None,
    parent_id: str | None = None,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, Any] | None = None,
    **actor: Any,
) -> str:
    """Record a call that already happened, and return its id: the MLflow run id.

    Never raises for a value it cannot use; such a value is left out with a note on the call.

    Args:
        operation, feature, kind, provider, model: what was asked of whom.
        prompt, response: text or plain JSON values.
        usage: the provider's numbers, a `Usage` or a map of its fields.
        input_tokens, output_tokens: short for a `usage` of these two.
        latency_ms, time_to_first_token_ms: milliseconds.
        started: when it began, a datetime (a naive one is read as UTC) or Unix seconds; default is
            `latency_ms` before now.
        success, error: whether it worked; an error makes it a failure.
        cost_usd: what it cost, when you know better than the price list.
        settings: request settings such as `temperature` and `max_tokens`.
        tool_calls: functions the model asked for.
        prompt_name, prompt_version, prompt_hash: which prompt was used.
        experiment: MLflow experiment, when not the feature's.
        function: the code that made the call.
        parent_id: id of the call or job this one belongs to.
        params, metrics, tags: your own, written beside ours.
        actor: `user_id`, `session_id`, `persona_id`, `user_role`, `audit_reason`, `environment`,
            where the context does not say.
    """
    notes = [f"unknown argument {name}" for name in actor.keys() - set(ACTOR)]
    duration_ns = _nanoseconds(latency_ms, notes) or 0
    pending = Pending(new_id(), _start_ns(started, duration_ns, notes), time.perf_counter_ns())

    def fields() -> dict[str, Any]:
        return {
            "duration_ns": duration_ns,
            "first_token_ns": _nanoseconds(time_to_first_token_ms, notes),
            "operation": operation,
            "feature": feature,
            "function": function,
            "experiment": experiment,
            "kind": str(kind),
            "provider": provider,
            "model_asked": model,
            "settings": dict(settings or {}),
            "prompt": prompt,
            "response": response,
            "tool_calls": tool_calls or [],
            "usage": given_usage(usage, input_tokens, output_tokens, notes),
            "outcome": given_outcome(success, error),
            "prompt_version": _prompt(prompt_name, prompt_version, prompt_hash),
            "parent_id": parent_id,
            "cost_usd": cost_usd,
            "params": dict(params or {}),
            "metrics": dict(metrics or {}),
            "tags": dict(tags or {}),
            "notes": notes,
        }

    with context(**{name: value for name, value in actor.items() if name in ACTOR}):
        recorder.finish(pending, fields)
    return pending.id


def _start_ns(started: datetime | float | None, duration_ns: int, notes: list[str]) -> int:
    now = time.time_ns() - duration_ns
    if started is None:
        return now
    try:
        start_ns = unix_ns(_with_time_zone(started, notes))
    except (ValueError, TypeError, OverflowError, OSError):
        notes.append("the start time could not be read")
        return now
    if abs(start_ns) < 2**63:
        return start_ns
    notes.append("the start time is not believable; the time of recording stands for it")
    return now


def _with_time_zone(started: datetime | float, notes: list[str]) -> datetime | float:
    if not isinstance(started, datetime):
        return float(started)
    if started.tzinfo is not None:
        return started
    notes.append("the naive start time was read as UTC")
    return started.replace(tzinfo=UTC)


def _nanoseconds(milliseconds: float | None, notes: list[str]) -> int | None:
    if milliseconds is None:
        return None
    try:
        nanoseconds = float(milliseconds) * 1e6
    except (TypeError, ValueError, OverflowError):
        nanoseconds = math.nan
    if not 0 <= nanoseconds < 2**62:
        notes.append("a time in milliseconds could not be read")
        return None
    return round(nanoseconds)


def given_usage(
    usage: Usage | Mapping[str, Any] | None,
    input_tokens: int | None,
    output_tokens: int | None,
    notes: list[str],
) -> Usage:
    """The usage that was given in either way; one that cannot be read is left out with a note."""
    given = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    try:
        if isinstance(usage, Usage):
            return usage
        return msgspec.convert({**given, **(usage or {})}, Usage)
    except (msgspec.ValidationError, TypeError) as exc:
        notes.append(f"the usage could not be read: {exc}")
        return Usage()


def given_outcome(success: bool, error: BaseException | str | None) -> Outcome:
    """Whether it worked; an error, of whatever kind, makes it a failure."""
    if isinstance(error, BaseException):
        return recorder.failure(error)
    if error is not None:
        return Outcome(success=False, error_type="Error", message=told(error))
    return Outcome(success=bool(success))


def _prompt(name: str | None, version: str | None, digest: str | None) -> Prompt | None:
    given = [None if value is None else str(value) for value in (name, version, digest)]
    return Prompt(name=given[0], version=given[1], hash=given[2]) if any(given) else None
