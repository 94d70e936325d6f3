"""Columns of `llm_calls` that follow from the rest of a call: what it is summed by, and its scores.

The scores and circumstances have the names of their metrics and tags in the documents that
flowledger comes from, as `intent_detection.md` lists them.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from flowledger.latency import bucket_of
from flowledger.records import Kind

__all__ = [
    "MAX_TEXT",
    "Derived",
    "derive",
    "dimension_text",
    "group_of",
    "ledger_text",
    "own_tag",
]

MAX_TEXT = 8000
LARGEST_SCORE = 1e9  # PostgreSQL refuses squares that are out of range, and
LEAST_SCORE = 1e-9  # those that are too small
CONFIDENCES = ("confidence_score", "confidence")
TEMPLATE_MATCHES = ("template_match_rate",)


class Derived(NamedTuple):
    """The derived columns, by name and in order.

    `model_call` is whether sums, averages and rates count the call. One with inner calls groups
    them, and a tool or a retrieval is a part of somebody's answer.
    """

    group_id: int
    model_call: bool
    latency_bucket: int
    confidence: float | None
    template_match: float | None
    intent: str | None
    module: str | None
    tab: str | None
    dspy_version: str | None


def derive(
    *,
    experiment_id: int,
    feature: str | None,
    persona_id: str | None,
    provider: str | None,
    model: str | None,
    prompt_version: str | None,
    success: bool,
    error_type: str | None,
    latency_ms: float,
    kind: str,
    parent_id: str | None,
    inner_calls: int,
    total_tokens: int | None,
    cost_usd: float | None,
    metrics: Mapping[str, Any],
    tags: Mapping[str, Any],
) -> Derived:
    """What follows from these columns and from the caller's own metrics and tags."""
    dspy_version = dimension_text(own_tag(tags, "dspy_version"))
    return Derived(
        group_id=group_of(
            experiment_id=experiment_id,
            feature=feature,
            persona_id=persona_id,
            provider=provider,
            model=model,
            prompt_version=prompt_version,
            dspy_version=dspy_version,
            success=success,
            error_type=error_type,
        ),
        model_call=inner_calls == 0
        and (
            any(value is not None for value in (model, total_tokens, cost_usd))
            or _may_ask_a_model(kind, parent_id)
        ),
        latency_bucket=bucket_of(latency_ms),
        confidence=_score(metrics, CONFIDENCES),
        template_match=_score(metrics, TEMPLATE_MATCHES),
        intent=dimension_text(own_tag(tags, "detected_intent")),
        module=dimension_text(own_tag(tags, "current_module")),
        tab=dimension_text(own_tag(tags, "current_tab")),
        dspy_version=dspy_version,
    )


def _may_ask_a_model(kind: str, parent_id: str | None) -> bool:
    """Whether a call without model, tokens and cost is one, or a part of another call's answer.

    A tracked function of no kind is a tool inside another call, and otherwise an operation of its
    own, around a client that nothing is known of.
    """
    return kind != Kind.RETRIEVAL and (kind != Kind.CUSTOM or parent_id is None)


def group_of(
    *,
    experiment_id: int,
    feature: str | None,
    persona_id: str | None,
    provider: str | None,
    model: str | None,
    prompt_version: str | None,
    dspy_version: str | None,
    success: bool,
    error_type: str | None,
) -> int:
    """The id of a group, which is a hash of what it is a combination of."""
    named = (feature, persona_id, provider, model, prompt_version, dspy_version, error_type)
    return _hash(experiment_id, bool(success), *named)


def ledger_text(value: str | None) -> str | None:
    """The text as every database takes it, cut to a bounded length."""
    if value is None:
        return None
    return (value.replace("\0", "\ufffd") if "\0" in value else value)[:MAX_TEXT]


def dimension_text(value: str | None) -> str | None:
    """The text of a column that calls are grouped by; an empty text is a missing value."""
    return ledger_text(value) or None


def own_tag(tags: Mapping[str, Any], name: str) -> str | None:
    """A tag of the caller's own, as text."""
    value = tags.get(name)
    return None if value is None else str(value)


def _hash(*values: object) -> int:
    """63 bits over these values, the same on every machine; None is unlike any text."""
    text = "\0".join(["" if value is None else f"={value}" for value in values])
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def _score(metrics: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    """The first of these metrics that is a number which can be squared and summed."""
    for name in names:
        value = metrics.get(name)
        if isinstance(value, int | float) and abs(value) <= LARGEST_SCORE:
            return float(value) if abs(value) >= LEAST_SCORE else 0.0
    return None
