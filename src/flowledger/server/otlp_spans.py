"""The spans of an OTLP request, protobuf or JSON, as the reader of GenAI spans wants them."""

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from flowledger.integrations.genai import GenAISpan

__all__ = ["spans_of"]

FAILED = 2  # STATUS_CODE_ERROR
MAX_DEPTH = 40
IDS = ("traceId", "spanId", "parentSpanId")


def spans_of(data: bytes, *, is_json: bool) -> list[GenAISpan]:
    """Every span of an `ExportTraceServiceRequest`.

    Raises:
        ValueError: it is none.
    """
    try:
        request = _from_json(data) if is_json else ExportTraceServiceRequest.FromString(data)
    except (DecodeError, ParseError, msgspec.DecodeError, TypeError, AttributeError) as exc:
        raise ValueError(f"no OTLP request: {type(exc).__name__}") from exc
    return list(_spans(request))


def _from_json(data: bytes) -> Any:
    """OTLP writes ids in hex, where protobuf's own JSON has base64."""
    given = msgspec.json.decode(data)
    for resource in given.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                for name in IDS:
                    if span.get(name):
                        span[name] = base64.b64encode(binascii.unhexlify(span[name])).decode()
    return ParseDict(given, ExportTraceServiceRequest(), ignore_unknown_fields=True)


def _spans(request: Any) -> Iterator[GenAISpan]:
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield GenAISpan(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex() or None,
                    name=span.name,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    events=[(event.name, _attributes(event.attributes)) for event in span.events],
                    resource=resource,
                    failed=span.status.code == FAILED,
                    message=span.status.message or None,
                )


def _attributes(pairs: Iterable[Any], depth: int = 0) -> dict[str, Any]:
    return {pair.key: _value(pair.value, depth) for pair in pairs}


def _value(given: Any, depth: int) -> Any:
    kind = given.WhichOneof("value")
    if kind is None or depth > MAX_DEPTH:
        return None
    value = getattr(given, kind)
    if kind == "array_value":
        return [_value(inner, depth + 1) for inner in value.values]
    if kind == "kvlist_value":
        return _attributes(value.values, depth + 1)
    return value
