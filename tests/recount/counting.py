"""Adding up plain records of calls, without any code of flowledger."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["by", "counted", "percentile", "sums", "unpriced", "value_of"]

Plain = dict[str, Any]


def counted(calls: Iterable[Plain], start_ms: float, end_ms: float, **wanted: Any) -> list[Plain]:
    """Those that asked a model themselves, in a window, with these values."""
    return [
        one
        for one in calls
        if not one["inner_calls"]
        and start_ms <= one["start_ms"] < end_ms
        and all(value_of(one, name) == value for name, value in wanted.items())
    ]


def value_of(one: Plain, dimension: str) -> str | None:
    """The value of a dimension; an empty text is a missing value, except of a tag."""
    if dimension == "status":
        return "failed" if one["failed"] else "success"
    value: str | None = one[dimension]
    return value if dimension.startswith("tag:") else value or None


def unpriced(one: Plain) -> bool:
    """Whether something was used whose price is unknown: an answer of a model, or tokens."""
    asked = not one["failed"] and value_of(one, "model") is not None
    return one["cost"] is None and (asked or one["tokens"] != (None, None))


def sums(calls: list[Plain]) -> Plain:
    """What these calls add up to."""
    scores = [one["confidence"] for one in calls if one["confidence"] is not None]
    latencies = [one["ms"] for one in calls]
    return {
        "calls": len(calls),
        "failed": sum(one["failed"] for one in calls),
        "input_tokens": sum(one["tokens"][0] or 0 for one in calls),
        "output_tokens": sum(one["tokens"][1] or 0 for one in calls),
        "cost_usd": math.fsum(one["cost"] or 0 for one in calls),
        "unpriced": sum(map(unpriced, calls)),
        "mean_ms": statistics.fmean(latencies) if latencies else 0.0,
        "std_ms": statistics.stdev(latencies) if len(latencies) > 1 else 0.0,
        "mean_confidence": statistics.fmean(scores) if scores else 0.0,
    }


def by(calls: Iterable[Plain], value: str | Callable[[Plain], Any]) -> dict[Any, list[Plain]]:
    """The calls of each value of a dimension, or of a function of a call."""
    found = defaultdict(list)
    for one in calls:
        found[value_of(one, value) if isinstance(value, str) else value(one)].append(one)
    return dict(found)


def percentile(calls: list[Plain], percent: int) -> float | None:
    """The latency of the call at the nearest rank."""
    ranked = sorted(one["ms"] for one in calls)
    return ranked[max(0, math.ceil(percent * len(ranked) / 100) - 1)] if ranked else None
