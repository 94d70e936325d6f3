"""A GenAI span, as OpenTelemetry knows it, read as a `Call`: pure, bounded, and it never raises.

Understood are OpenTelemetry's GenAI conventions of today, the forms before them (`gen_ai.system`,
`gen_ai.prompt`, indexed attributes, events for each message), and OpenInference's `llm.*`.
Sources: opentelemetry.io/docs/specs/semconv/gen-ai; OpenInference's semantic conventions.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from flowledger.integrations.genai_content import Asked, content_of, decoded
from flowledger.integrations.sdk_endpoints import SECRET_FIELDS
from flowledger.records import Actor, Call, Kind, Outcome, Prompt, Usage

__all__ = ["GenAISpan", "asks_a_model", "call_id", "read_calls", "read_span"]

LARGEST = 2**62  # as many nanoseconds or tokens as every database holds
LONGEST_NAME = 300
LONGEST_ERROR = 16 << 10
MAX_SETTINGS = 100

OPERATIONS = {
    "chat": Kind.CHAT,
    "generate_content": Kind.CHAT,
    "text_completion": Kind.COMPLETION,
    "completion": Kind.COMPLETION,
    "embeddings": Kind.EMBEDDING,
    "embedding": Kind.EMBEDDING,
    "generate_image": Kind.IMAGE,
    "image_generation": Kind.IMAGE,
    "llm": Kind.CHAT,
}
# Spans around the calls of models: MLflow's trace keeps them, and what they sum up was counted.
AROUND = frozenset(
    (
        *("invoke_agent", "create_agent", "execute_tool", "invoke_workflow", "retrieval"),
        *("chain", "tool", "agent", "retriever", "reranker", "rerank", "guardrail", "evaluator"),
        *("prompt", "workflow", "task"),
    )
)
# OpenTelemetry's names of providers, where prices and people know another one.
PROVIDERS = {
    "azure.ai.openai": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.inference": "azure",
    "aws.bedrock": "aws",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "vertex_ai": "google",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
}
USAGE = {
    "input_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
    ),
    "output_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
    ),
    "cached_input_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    "input_audio_tokens": ("llm.token_count.prompt_details.audio",),
    "output_audio_tokens": ("llm.token_count.completion_details.audio",),
}
CACHED_APART = "cached tokens were not among the input tokens, and were added to them"


class GenAISpan(NamedTuple):
    """A finished span, whoever made it.

    `trace_id`, `span_id` and `parent_id` are hex; times are Unix nanoseconds; `resource` holds the
    attributes of who made it; `events` are pairs of a name and attributes.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()
    resource: Mapping[str, Any] = {}
    failed: bool = False
    message: str | None = None


def read_calls(spans: Sequence[GenAISpan]) -> list[Call]:
    """The calls of models among these spans.

    A call made inside another one, as by a client of OpenAI's inside LangChain's, is what asked the
    model: the outer one becomes its group, without tokens of its own.
    """
    calls = {(s.trace_id, s.span_id): c for s in spans if (c := read_span(s)) is not None}
    for span in spans:
        outer = calls.get((span.trace_id, span.parent_id or ""))
        inner = calls.get((span.trace_id, span.span_id))
        if outer is None or inner is None or outer is inner:
            continue
        calls[span.trace_id, span.span_id] = msgspec.structs.replace(inner, parent_id=outer.id)
        key = (span.trace_id, span.parent_id or "")
        count = calls[key].inner_calls + 1
        calls[key] = msgspec.structs.replace(calls[key], inner_calls=count, usage=Usage())
    return list(calls.values())


def read_span(span: GenAISpan) -> Call | None:
    """The call that this span is about; None when it is about none of a model's."""
    about = span.attributes
    operation = _operation(about)
    if operation is None:
        return None
    asked = content_of(about, span.events)
    notes: list[str] = []
    start_ns = _bounded(span.start_ns)
    return Call(
        id=call_id(span.trace_id, span.span_id, start_ns),
        start_ns=start_ns,
        duration_ns=max(0, _bounded(span.end_ns) - start_ns),
        first_token_ns=_first_token(about),
        operation=operation or _name(span.name) or "call",
        feature=_text(about, "flowledger.feature"),
        kind=_kind(operation, asked),
        provider=_provider(about),
        model_asked=_text(about, "gen_ai.request.model", "llm.model_name", "embedding.model_name"),
        model=_text(about, "gen_ai.response.model"),
        settings=_settings(about),
        prompt=asked.prompt,
        response=asked.response,
        tool_calls=asked.tool_calls,
        actor=_actor(about, span.resource),
        usage=_usage(about, notes),
        outcome=_outcome(span),
        prompt_version=Prompt(
            name=_text(about, "gen_ai.prompt.name", "llm.prompt_template.name"),
            version=_text(about, "gen_ai.prompt.version", "llm.prompt_template.version"),
        ),
        params=_params(about),
        tags=_tags(span),
        notes=notes,
    )


def asks_a_model(attributes: Mapping[str, Any]) -> bool:
    """Whether a span with these attributes is about a call of a model."""
    return _operation(attributes) is not None


def call_id(trace_id: str, span_id: str, start_ns: int) -> str:
    """The id of a span's call, the same whenever it is made: a UUIDv7 of its start and its ids."""
    digest = hashlib.sha256(f"{trace_id}:{span_id}".encode("utf-8", "replace")).digest()
    chance = int.from_bytes(digest[:10])
    milliseconds = (start_ns // 1_000_000) & ((1 << 48) - 1)
    high, low = (chance >> 64) & 0xFFF, chance & ((1 << 62) - 1)
    return f"{milliseconds << 80 | 0x7 << 76 | high << 64 | 0x2 << 62 | low:032x}"


def _operation(about: Mapping[str, Any]) -> str | None:
    """What was done, empty where only a model tells that one was asked; None: no call."""
    given = _text(
        about,
        *("gen_ai.operation.name", "openinference.span.kind"),
        *("llm.request.type", "traceloop.span.kind"),
    )
    name = (given or "").lower()
    if name in AROUND:
        return None
    if name in OPERATIONS:
        return "chat" if name == "llm" else name
    modelled = _text(about, "gen_ai.request.model", "gen_ai.response.model", "llm.model_name")
    return name if modelled else None


def _kind(operation: str, asked: Asked) -> str:
    kind = OPERATIONS.get(operation, Kind.CHAT if not operation else Kind.CUSTOM)
    return str(Kind.VISION if kind is Kind.CHAT and asked.shows_image else kind)


def _bounded(number: Any) -> int:
    return min(max(0, number), LARGEST) if isinstance(number, int) else 0


def _name(value: Any) -> str | None:
    return value[:LONGEST_NAME] or None if isinstance(value, str) else None


def _text(about: Mapping[str, Any], *names: str) -> str | None:
    """The first of these attributes that is text with something in it."""
    return next((text for name in names if (text := _name(about.get(name)))), None)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if 0 <= value <= LARGEST else None


def _count(about: Mapping[str, Any], names: Sequence[str]) -> int | None:
    numbers = (number for name in names if (number := _number(about.get(name))) is not None)
    return next(map(int, numbers), None)


def _usage(about: Mapping[str, Any], notes: list[str]) -> Usage:
    usage = msgspec.convert({f: _count(about, names) for f, names in USAGE.items()}, Usage)
    apart = (usage.cached_input_tokens or 0) + (usage.cache_write_tokens or 0)
    # The conventions count them in; some who write Anthropic's numbers do not.
    if usage.input_tokens is not None and apart > usage.input_tokens:
        notes.append(CACHED_APART)
        together = min(usage.input_tokens + apart, LARGEST)
        return msgspec.structs.replace(usage, input_tokens=together)
    return usage


def _provider(about: Mapping[str, Any]) -> str | None:
    name = _text(about, "gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
    return None if name is None else PROVIDERS.get(name.lower(), name.lower())


def _first_token(about: Mapping[str, Any]) -> int | None:
    names = ("gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token")
    seconds = next((s for name in names if (s := _number(about.get(name))) is not None), None)
    return None if seconds is None else min(round(seconds * 1e9), LARGEST)


def _settings(about: Mapping[str, Any]) -> dict[str, Any]:
    given = decoded(about.get("llm.invocation_parameters"))
    settings = dict(given) if isinstance(given, Mapping) else {}
    for key, value in about.items():
        for start in ("gen_ai.request.", "gen_ai.openai.request."):
            if isinstance(key, str) and key.startswith(start):
                settings[key.removeprefix(start)] = value
    kept = [(str(k)[:LONGEST_NAME], v) for k, v in settings.items() if k not in NO_SETTINGS]
    return {key: "***" if _is_secret(key) else value for key, value in kept[:MAX_SETTINGS]}


NO_SETTINGS = ("model", "messages", "input", "prompt")


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_FIELDS)


def _actor(about: Mapping[str, Any], resource: Mapping[str, Any]) -> Actor:
    return Actor(
        user_id=_text(about, "user.id", "enduser.id"),
        session_id=_text(about, "gen_ai.conversation.id", "session.id"),
        environment=_text(resource, "deployment.environment.name", "deployment.environment"),
    )


def _outcome(span: GenAISpan) -> Outcome:
    if not span.failed:
        return Outcome()
    raised = next((about for name, about in span.events if name == "exception"), {})
    told = span.message or raised.get("exception.message")
    kind = _text(span.attributes, "error.type") or _text(raised, "exception.type")
    stack = raised.get("exception.stacktrace")
    return Outcome(
        success=False,
        error_type=kind or "Error",
        message=told[:LONGEST_ERROR] if isinstance(told, str) else None,
        stack=stack[-LONGEST_ERROR:] if isinstance(stack, str) else None,
    )


def _params(about: Mapping[str, Any]) -> dict[str, Any]:
    reasons = about.get("gen_ai.response.finish_reasons") or about.get("llm.finish_reason")
    many = reasons if isinstance(reasons, list | tuple) else [reasons]
    told = list(dict.fromkeys(reason for reason in many[:20] if isinstance(reason, str)))
    params = {
        "finish_reason": ", ".join(told)[:LONGEST_NAME] or None,
        "response_id": _text(about, "gen_ai.response.id"),
    }
    return {name: value for name, value in params.items() if value is not None}


def _tags(span: GenAISpan) -> dict[str, Any]:
    tags = {
        "otel.trace_id": span.trace_id,
        "otel.span_id": span.span_id,
        "agent_name": _text(span.attributes, "gen_ai.agent.name", "agent.name"),
        "service_name": _text(span.resource, "service.name"),
    }
    return {name: value for name, value in tags.items() if value}
