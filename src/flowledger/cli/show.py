"""`flowledger show ID`: everything recorded about one call."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from flowledger import config
from flowledger.cli.reading import open_ledger
from flowledger.cli.text import duration, print_json, printable

if TYPE_CHECKING:
    from flowledger.questions import StoredCall
    from flowledger.questions.around import Around

MOST_CHARACTERS = 2_000
Pairs = Iterable[tuple[str, Any]]
TOKENS = ("input_tokens", "output_tokens", "total_tokens")
WHERE_ANY = (
    "cached_input_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "input_image_tokens",
    "images",
    "audio_seconds",
    "input_characters",
)


@click.command()
@click.argument("call_id", metavar="ID")
@click.option("--full", is_flag=True, help="Do not cut long prompts and responses.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every field, uncut.")
def command(call_id: str, full: bool, as_json: bool) -> None:
    """Show everything recorded about one call.

    ID is the call's id, which is also its MLflow run id. The beginning is enough when no other
    call's id begins so; the first 12 of its 32 characters are the time.

    \b
    Examples:
      flowledger show 01a1fbd1fea079d9b91febda5250fb35
      flowledger show 01a1fbd1fea079d9 --full
      flowledger show 01a1fbd1fea079d9 --json | jq .content.response
    """
    with open_ledger(config.load().tracking_uri) as ledger:
        call = ledger.call(call_id)
        found = ledger.around(call)
    if as_json:
        print_json({**msgspec.structs.asdict(call), **msgspec.structs.asdict(found)})
        return
    for line in _record(call, found, None if full else MOST_CHARACTERS):
        click.echo(printable(line))


def _record(call: "StoredCall", around: "Around", longest: int | None) -> Iterator[str]:
    """The record as text, in the order it is read: who, how, how much, what."""
    yield "=== MLflow Record ==="
    yield from _section("RUN IDENTIFICATION", _identification(call))
    yield from _section("PARAMETERS", _parameters(call))
    yield from _section("METRICS", _metrics(call))
    yield from _section("COST", _cost(call))
    yield from _section("TAGS", call.tags.items())
    yield from _text("PROMPT", _as_text(call.content.prompt), longest)
    yield from _text("RESPONSE", _as_text(call.content.response), longest)
    yield from _section("TOOLS", _tools(call))
    yield from _text("SOURCES", _sources(around.sources), longest)
    yield from _section("PART OF", _part_of(around))
    yield from _section("CALLS INSIDE", _inside(around))
    yield from _text("SPANS", "\n".join(_spans(call, around)), None)
    yield from _section("ERROR", _error(call))
    yield from _text("STACK", call.content.stack, longest)
    yield from _text("NOTES", "\n".join(call.notes), None)


def _section(title: str, pairs: Pairs) -> Iterator[str]:
    """A titled list of what is known; nothing when nothing is."""
    lines = [f"  {name}: {_indented(value)}" for name, value in pairs if value is not None]
    if lines:
        yield from (f"{title}:", *lines, "")


def _indented(value: Any) -> str:
    return (_as_text(value) or "").replace("\n", "\n    ")


def _text(title: str, text: str | None, longest: int | None) -> Iterator[str]:
    """A titled text, cut to its beginning when it is long."""
    if not text:
        return
    yield f"{title}:"
    yield from (f"  {line}" for line in text[:longest].split("\n"))
    if longest is not None and len(text) > longest:
        yield f"  [{len(text) - longest:,} more characters: --full shows them]"
    yield ""


def _as_text(value: Any) -> str | None:
    """Text for people: messages as a conversation, other values as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(map(_is_message, value)):
        return "\n".join(f"{message['role']}: {message['content']}" for message in value)
    return msgspec.json.encode(value).decode()


def _sources(sources: list[Any]) -> str | None:
    """Passages as they are cited, and what other retrievers returned as JSON."""
    passages = [one for found in sources if isinstance(found, list) for one in found]
    if not passages or not all(isinstance(one, dict) and "text" in one for one in passages):
        return _as_text(sources or None)
    return "\n".join(
        f"[{one.get('number', place)}] {one.get('source', '?')}, {one.get('place') or '-'}:"
        f" {one['text']}"
        for place, one in enumerate(passages, 1)
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and isinstance(value.get("content"), str)


def _identification(call: "StoredCall") -> Pairs:
    started = datetime.fromtimestamp(call.start_ms / 1000, UTC)
    return (
        ("User ID", call.user_id),
        ("Audit Reason", call.audit_reason),
        ("Model", call.model),
        ("Timestamp", started.isoformat(timespec="milliseconds")),
        ("Status", "success" if call.success else "failed"),
        ("Session ID", call.session_id),
        ("Persona ID", call.persona_id),
        ("User Role", call.user_role),
        ("Environment", call.environment),
        ("Run ID", call.id),
        ("Trace ID", call.trace_id),
        ("Inside", call.parent_id),
        ("Experiment", call.experiment),
        ("Process", _process(call)),
    )


def _process(call: "StoredCall") -> str | None:
    if call.process_host is None:
        return None
    return f"{call.process_source} on {call.process_host}, pid {call.process_pid}"


def _parameters(call: "StoredCall") -> Pairs:
    asked = call.model_asked if call.model_asked != call.model else None
    return (
        ("model", call.model),
        ("model_asked", asked),
        ("provider", call.provider),
        ("kind", call.kind),
        ("feature", call.feature),
        ("operation", call.operation or None),
        ("function", call.function),
        *call.settings.items(),
        ("user_id", call.user_id),
        ("session_id", call.session_id),
        ("persona_id", call.persona_id),
        ("audit_reason", call.audit_reason),
        ("prompt_name", call.prompt_name),
        ("prompt_version", call.prompt_version),
        ("prompt_hash", call.prompt_hash),
        *call.params.items(),
    )


def _metrics(call: "StoredCall") -> Pairs:
    return (
        *((name, getattr(call, name)) for name in TOKENS),
        *((name, getattr(call, name) or None) for name in WHERE_ANY),
        ("cost_usd", call.cost_usd and round(call.cost_usd, 12)),
        ("latency_ms", call.latency_ms),
        ("time_to_first_token_ms", call.time_to_first_token_ms),
        ("success", 1.0 if call.success else 0.0),
        *call.metrics.items(),
    )


def _cost(call: "StoredCall") -> Pairs:
    priced = call.cost_usd is not None
    used = call.total_tokens is not None
    return (
        ("total", _dollars(call.cost_usd) if priced or not used else "unknown, no price is known"),
        ("input", _dollars(call.input_cost_usd)),
        ("output", _dollars(call.output_cost_usd)),
        ("usage", call.usage_source),
        ("source", call.cost_source),
    )


def _dollars(usd: float | None) -> str | None:
    return None if usd is None else f"${usd:.8f}"


def _tools(call: "StoredCall") -> Pairs:
    for tool in call.content.tool_calls:
        result = "" if tool.result is None else f" -> {tool.result}"
        yield tool.name, (tool.arguments or "{}") + result


def _part_of(around: "Around") -> Pairs:
    for one in around.part_of:
        yield one.kind, f"{one.name}, {one.id}" + ("" if one.success else ", failed")


def _inside(around: "Around") -> Pairs:
    for one in around.calls_inside:
        state = "ok" if one.success else f"failed: {one.error_type}"
        yield one.id, f"{one.operation}, {one.model or '-'}, {duration(one.latency_ms)}, {state}"


def _spans(call: "StoredCall", around: "Around") -> Iterator[str]:
    """The spans of a trace one below the other, each after when it began."""
    if len(around.spans) < 2:
        return
    first = min(span.start_ns for span in around.spans)
    depths: dict[str | None, int] = {}
    for span in around.spans:
        depths[span.span_id] = depth = depths.get(span.parent_span_id, -1) + 1
        began = duration((span.start_ns - first) / 1e6)
        took = "under way" if span.end_ns is None else duration((span.end_ns - span.start_ns) / 1e6)
        failed = ", failed" if span.status == "ERROR" else ""
        here = "  <- this call" if span.span_id == call.id[16:] else ""
        yield f"{began:>10}  {'  ' * depth}{span.name}: {took}{failed}{here}"


def _error(call: "StoredCall") -> Pairs:
    if call.success:
        return ()
    took = duration(call.latency_ms)
    return (("type", call.error_type), ("message", call.error_message), ("after", took))
