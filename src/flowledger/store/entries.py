"""What a call becomes in MLflow, in MLflow's own words, before anything is written.

Pure: no SQL, no MLflow. Both sinks write what `entry` makes, so a run looks the same whichever way
it came. Values from outside are made to fit MLflow's limits here, each change with a note.
"""

import math
import posixpath
import re
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from flowledger import pricing, tokens
from flowledger.records import Call, Cost, Kind, Prompt, ToolCall, Usage
from flowledger.store.signatures import FewVersions, versioned

__all__ = [
    "USAGE_DETAILS",
    "Entry",
    "Trace",
    "entry",
    "fitted",
    "json_text",
    "own_pairs",
    "user_of",
]

# MLflow's limits: mlflow/utils/validation.py and the widths of its columns, 3.17.2.
MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 8000
MAX_METADATA = 8000
MAX_PREVIEW = 1000
MAX_NAME = 250
MAX_USER = 256
MAX_SESSION = 250
MAX_EXPERIMENT = 256
MAX_OWN = 100
MAX_LEDGER_TEXT = 8000
DAY_NS = 86_400 * 10**9
YEAR_2000_NS = 946_684_800 * 10**9
LARGEST_FLOAT = 1.7976931348623157e308
LARGEST_COUNT = 10**12
NO_USAGE = Usage()
DEFAULT_EXPERIMENT = "Default"

SPAN_TYPES = {
    Kind.CHAT: "CHAT_MODEL",
    Kind.VISION: "CHAT_MODEL",
    Kind.COMPLETION: "LLM",
    Kind.IMAGE: "LLM",
    Kind.SPEECH: "LLM",
    Kind.EMBEDDING: "EMBEDDING",
    Kind.RETRIEVAL: "RETRIEVER",
}
TOOL_RESULTS = "flowledger.toolResults"
CONVERSATIONS = (Kind.CHAT, Kind.VISION, Kind.COMPLETION)
# Metrics of what few calls use, and their attributes on a span: OpenTelemetry's where it has one.
# Source: OpenTelemetry semantic conventions, gen-ai-spans.
USAGE_DETAILS = {
    "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "cache_write_1h_tokens": "flowledger.usage.cache_write_1h_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "input_audio_tokens": "flowledger.usage.input_audio_tokens",
    "output_audio_tokens": "flowledger.usage.output_audio_tokens",
    "input_image_tokens": "flowledger.usage.input_image_tokens",
    "images": "flowledger.usage.images",
    "audio_seconds": "flowledger.usage.audio_seconds",
    "input_characters": "flowledger.usage.input_characters",
}
REQUEST_SETTINGS = ("temperature", "top_p", "max_tokens", "seed")

_odd_key = re.compile(r"[^/\w.\- :]")


class Trace(NamedTuple):
    """One trace with its root span; attributes are JSON texts, as MLflow keeps them.

    `prompt` is the version in MLflow's prompt registry that the trace is linked to.
    """

    name: str
    span_type: str
    request_preview: str | None
    response_preview: str | None
    attributes: dict[str, str]
    tags: list[tuple[str, str]]
    prompt: Prompt | None


class Entry(NamedTuple):
    """A call as MLflow and the ledger will hold it."""

    call: Call
    cost: Cost | None
    experiment: str
    name: str
    start_ns: int
    end_ns: int
    params: list[tuple[str, str]]
    metrics: list[tuple[str, float]]
    tags: list[tuple[str, str]]
    trace: Trace
    notes: list[str]


def entry(call: Call, now_ns: int | None = None, versions: FewVersions | None = None) -> Entry:
    """What a call becomes, with its tokens counted where none were given, and its price.

    Args:
        call: as it was recorded.
        now_ns: the store's clock, Unix nanoseconds.
        versions: hashes of prompts that count as versions; all do without.
    """
    notes = list(call.notes)
    start_ns = believable(call.start_ns, now_ns or time.time_ns(), notes)
    call = versioned(tokens.complete(_believable_usage(call, notes)), versions)
    cost = pricing.price(call)
    name = fitted(call.operation or call.function or call.kind, MAX_NAME, notes)
    return Entry(
        call=call,
        cost=cost,
        experiment=fitted(call.experiment or DEFAULT_EXPERIMENT, MAX_EXPERIMENT),
        name=name,
        start_ns=start_ns,
        end_ns=start_ns + max(0, call.duration_ns),
        params=_params(call, notes),
        metrics=_metrics(call, cost, notes),
        tags=_tags(call, name, notes),
        trace=_trace(call, cost, name, start_ns),
        notes=notes,
    )


def user_of(call: Call) -> str:
    """MLflow's user of a run: who asked."""
    return fitted(call.actor.user_id or "", MAX_USER)


def json_text(value: Any) -> str:
    """The value as JSON, what has no JSON form as text."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return msgspec.json.encode(str(value)).decode()


def believable(start_ns: int, now_ns: int, notes: list[str]) -> int:
    if YEAR_2000_NS <= start_ns <= now_ns + DAY_NS:
        return start_ns
    notes.append(f"start time {start_ns} ns is not believable; the time of storing stands for it")
    return now_ns


def _believable_usage(call: Call, notes: list[str]) -> Call:
    """The call without counts that no call can have, which would spoil every sum they are in."""
    usage = call.usage
    if usage == NO_USAGE:
        return call
    odd = {
        name: None
        for name, value in msgspec.structs.asdict(usage).items()
        if isinstance(value, int | float) and not 0 <= value <= LARGEST_COUNT
    }
    if not odd:
        return call
    notes.append(f"counts that are not believable were left out: {', '.join(odd)}")
    return msgspec.structs.replace(call, usage=msgspec.structs.replace(usage, **odd))


def fitted(value: Any, longest: int, notes: list[str] | None = None) -> str:
    """The value as text that every database takes, at most so long; told in `notes` when given."""
    text = value if isinstance(value, str) else _as_text(value)
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
        _note(notes, "NUL characters, which no database takes, were replaced")
    if len(text) > longest:
        _note(notes, f"a text is cut to the {longest} characters MLflow takes")
    return text[:longest]


def _note(notes: list[str] | None, note: str) -> None:
    if notes is not None and note not in notes:
        notes.append(note)


def _as_text(value: Any) -> str:
    return json_text(value) if isinstance(value, dict | list) else str(value)


def _optional(value: Any, longest: int) -> str | None:
    return None if value is None else fitted(value, longest)


def _params(call: Call, notes: list[str]) -> list[tuple[str, str]]:
    actor = call.actor
    ours = {
        "model": call.model or call.model_asked,
        "provider": call.provider,
        "feature": call.feature,
        "operation": call.operation or None,
        "function": call.function,
        "temperature": call.settings.get("temperature"),
        "max_tokens": call.settings.get("max_tokens"),
        "prompt": _prompt_text(call.prompt),
        "response": None if call.response is None else _as_plain(call.response),
        "persona_id": actor.persona_id,
        "user_id": actor.user_id,
        "session_id": actor.session_id,
        "audit_reason": actor.audit_reason,
    }
    pairs = _with_second_names(ours, call.also_as)
    pairs.update(own_pairs(call.params, "params", notes))
    # The trace holds a long prompt or response whole, so that is no loss to tell of.
    in_trace = ("prompt", "response")
    return [
        (key, fitted(value, MAX_PARAM, None if key in in_trace else notes))
        for key, value in pairs.items()
    ]


def _metrics(call: Call, cost: Cost | None, notes: list[str]) -> list[tuple[str, float]]:
    usage = call.usage
    first = call.first_token_ns
    ours = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        **_usage_details(usage),
        "cost_usd": None if cost is None else cost.total,
        "latency_ms": max(0, call.duration_ns) / 1e6,
        "time_to_first_token_ms": None if first is None else first / 1e6,
        "success": 1.0 if call.outcome.success else 0.0,
    }
    pairs = _with_second_names(ours, call.also_as)
    pairs.update(own_pairs(call.metrics, "metrics", notes))
    numbers = ((key, number_of(value)) for key, value in pairs.items())
    kept = [(key, number) for key, number in numbers if number is not None]
    if len(kept) < len(pairs):
        notes.append("metrics that are no numbers were left out")
    return kept


def _usage_details(usage: Usage) -> dict[str, float]:
    """The numbers of a usage that few calls have, by metric; 0 is left out."""
    values = (
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens,
        usage.reasoning_tokens,
        usage.input_audio_tokens,
        usage.output_audio_tokens,
        usage.input_image_tokens,
        usage.images,
        usage.seconds,
        usage.characters,
    )
    return {name: value for name, value in zip(USAGE_DETAILS, values, strict=True) if value}


def _tags(call: Call, name: str, notes: list[str]) -> list[tuple[str, str]]:
    actor = call.actor
    ours = {
        "mlflow.runName": name,
        "mlflow.user": actor.user_id,
        "user_id": actor.user_id,
        "session_id": actor.session_id,
        "persona_id": actor.persona_id,
        "user_role": actor.user_role,
        "environment": actor.environment,
        "feature": call.feature,
        "audit_reason": actor.audit_reason,
        "status": "success" if call.outcome.success else "failed",
        "error_type": call.outcome.error_type,
        "error": call.outcome.message,
        "prompt_version": call.prompt_version.version or call.prompt_version.hash,
        "flowledger.id": call.id,
        "mlflow.parentRunId": call.parent_id,
    }
    pairs = {key: value for key, value in ours.items() if value is not None}
    pairs.update(
        (k, v) for k, v in own_pairs(call.tags, "tags", notes).items() if k not in FIXED_TAGS
    )
    return [(key, fitted(value, MAX_TAG, notes)) for key, value in pairs.items()]


FIXED_TAGS = frozenset(("mlflow.runName", "flowledger.id"))


def _with_second_names(ours: dict[str, Any], also_as: dict[str, str]) -> dict[str, Any]:
    """What is known of ours, by its name and by the second one that the application gave it."""
    pairs = {key: value for key, value in ours.items() if value is not None}
    if not also_as:
        return pairs
    seconds = {key_of(also_as[key]): value for key, value in pairs.items() if key in also_as}
    return {**seconds, **pairs}


def own_pairs(given: dict[str, Any], what: str, notes: list[str]) -> dict[str, Any]:
    """The caller's own names and values, as many as MLflow takes at once, with names it takes."""
    if not given:
        return given
    kept: dict[str, Any] = {}
    for key, value in given.items():
        if len(kept) == MAX_OWN:
            notes.append(f"{len(given) - MAX_OWN} {what} over the {MAX_OWN} MLflow takes left out")
            break
        name = key_of(key)
        if name != key:
            notes.append(f"a name in {what} was changed to {name!r}")
        if value is not None:
            kept[name] = value
    return kept


def key_of(key: str) -> str:
    """The name with what MLflow does not take in one replaced."""
    name = _odd_key.sub("_", str(key))[:MAX_KEY].strip() or "_"
    unique = posixpath.normpath(name)
    return "_" if unique in (".", "/") or unique.startswith("..") else unique.lstrip("/")


def number_of(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _prompt_text(prompt: Any) -> str | None:
    """A prompt for people: a lone message's text, anything longer as JSON."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], dict):
        content = prompt[0].get("content")
        if isinstance(content, str):
            return content
    return None if prompt is None else _as_plain(prompt)


def _as_plain(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def _trace(call: Call, cost: Cost | None, name: str, start_ns: int) -> Trace:
    inputs, outputs = _inputs(call), _outputs(call)
    texts = {"mlflow.spanInputs": json_text(inputs)} if inputs is not None else {}
    if outputs is not None:
        texts["mlflow.spanOutputs"] = json_text(outputs)
    attributes = {key: json_text(value) for key, value in _attributes(call, cost)}
    return Trace(
        name=name,
        span_type=_span_type(call),
        request_preview=preview(texts.get("mlflow.spanInputs"), _last_user_text(inputs)),
        response_preview=preview(texts.get("mlflow.spanOutputs"), _answer_text(outputs)),
        attributes={**attributes, **texts},
        tags=_trace_tags(call),
        prompt=_linked(call.prompt_version),
    )


def _trace_tags(call: Call) -> list[tuple[str, str]]:
    tags = [("feature", fitted(call.feature, MAX_TAG))] if call.feature else []
    prompt = _linked(call.prompt_version)
    if prompt is None:
        return tags
    linked = [{"name": prompt.name, "version": prompt.version}]
    return [*tags, ("mlflow.linkedPrompts", fitted(json_text(linked), MAX_TAG))]


def _linked(prompt: Prompt) -> Prompt | None:
    """The prompt where its version is one of MLflow's registry, which counts from 1."""
    version = prompt.version or ""
    return prompt if prompt.name and version.isascii() and version.isdecimal() else None


def _span_type(call: Call) -> str:
    known = SPAN_TYPES.get(call.kind)  # type: ignore[call-overload]
    return known or ("LLM" if call.model or call.model_asked else "CHAIN")


def _inputs(call: Call) -> Any:
    prompt = call.prompt
    if prompt is None or isinstance(prompt, dict):
        return prompt
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], dict) and "role" in prompt[0]:
        return {"messages": prompt}
    if isinstance(prompt, str) and call.kind in CONVERSATIONS:
        return {"messages": [{"role": "user", "content": prompt}]}
    return {"prompt": prompt}


def _outputs(call: Call) -> Any:
    response = call.response
    if isinstance(response, dict):
        return response
    if _asked_for(call) or (isinstance(response, str) and call.kind in CONVERSATIONS):
        return {"choices": [{"message": _message(call, response)}]}
    return None if response is None else {"response": response}


def _message(call: Call, response: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": response}
    if asked := _asked_for(call):
        message["tool_calls"] = [
            {
                "id": tool.id,
                "type": "function",
                "function": {"name": tool.name, "arguments": tool.arguments},
            }
            for tool in asked
        ]
    return message


def _asked_for(call: Call) -> list[ToolCall]:
    """The tools the answer asks for; those that have a result ran before it."""
    return [tool for tool in call.tool_calls if tool.result is None]


def _last_user_text(inputs: Any) -> str:
    """As MLflow previews a request: the last message of a user, else the last one."""
    messages = inputs.get("messages") if isinstance(inputs, dict) else None
    if not isinstance(messages, list):
        return ""
    messages = [m for m in messages if isinstance(m, dict) and "role" in m and "content" in m]
    users = [m for m in messages if m["role"] == "user"]
    return _content_text((users or messages)[-1]["content"]) if messages else ""


def _answer_text(outputs: Any) -> str:
    choices = outputs.get("choices") if isinstance(outputs, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return _content_text(message.get("content")) if isinstance(message, dict) else ""


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            return part
        if isinstance(part, dict) and part.get("type") in ("text", "output_text"):
            return str(part.get("text") or "")
    return ""


def preview(whole: str | None, text: str) -> str | None:
    if whole is None:
        return None
    shown = (text or whole).replace("\0", "\ufffd")
    return shown if len(shown) <= MAX_PREVIEW else shown[: MAX_PREVIEW - 3] + "..."


def _attributes(call: Call, cost: Cost | None) -> Iterable[tuple[str, Any]]:
    """The span's attributes: MLflow's own, then OpenTelemetry's GenAI conventions.

    Source: OpenTelemetry semantic conventions, gen-ai-spans.
    """
    usage, actor, model = call.usage, call.actor, call.model or call.model_asked
    yield "mlflow.traceRequestId", f"tr-{call.id}"
    yield "mlflow.spanType", _span_type(call)
    yield "mlflow.spanLogLevel", 20 if call.outcome.success else 40
    if usage.total_tokens is not None:
        yield "mlflow.chat.tokenUsage", token_usage(call)
        yield "gen_ai.usage.input_tokens", usage.input_tokens or 0
        yield "gen_ai.usage.output_tokens", usage.output_tokens or 0
    for name, amount in _usage_details(usage).items():
        yield USAGE_DETAILS[name], amount
    if cost is not None:
        yield "mlflow.llm.cost", cost_parts(cost)
    for key, value in (
        ("mlflow.llm.model", model),
        ("mlflow.llm.provider", call.provider),
        ("gen_ai.provider.name", call.provider),
        ("gen_ai.request.model", call.model_asked or call.model),
        ("gen_ai.response.model", call.model),
        ("gen_ai.conversation.id", actor.session_id),
        ("user.id", actor.user_id),
        ("error.type", call.outcome.error_type),
    ):
        if value is not None:
            yield key, value
    ran = [tool for tool in call.tool_calls if tool.result is not None]
    if ran:
        yield TOOL_RESULTS, ran
    yield "gen_ai.operation.name", str(call.kind)
    for name in REQUEST_SETTINGS:
        if call.settings.get(name) is not None:
            yield f"gen_ai.request.{name}", call.settings[name]


def token_usage(call: Call) -> dict[str, int]:
    """The tokens of a call by the names MLflow gives them."""
    usage = call.usage
    named = {
        "input_tokens": usage.input_tokens or 0,
        "output_tokens": usage.output_tokens or 0,
        "total_tokens": usage.total_tokens or 0,
    }
    if usage.cached_input_tokens:
        named["cache_read_input_tokens"] = usage.cached_input_tokens
    if usage.cache_write_tokens:
        named["cache_creation_input_tokens"] = usage.cache_write_tokens
    return named


def cost_parts(cost: Cost) -> dict[str, float]:
    """The cost of a call by the names MLflow gives its parts."""
    parts = {"input_cost": cost.input, "output_cost": cost.output, "total_cost": cost.total}
    return {name: value for name, value in parts.items() if value is not None}


def finite(value: float) -> tuple[float, bool]:
    """A metric's value as MLflow stores it, and whether it stands for NaN."""
    if math.isnan(value):
        return 0.0, True
    return max(-LARGEST_FLOAT, min(LARGEST_FLOAT, value)), False
