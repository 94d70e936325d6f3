"""A span as MLflow keeps it: one row, with the whole of it as JSON."""

import binascii
from typing import Any

from flowledger.records import Outcome
from flowledger.store.entries import json_text

__all__ = ["span_content", "span_id_of"]


def span_id_of(record_id: str) -> str:
    """The id of the span that a call, job or span becomes: the random half of its own."""
    return record_id[16:]


def span_content(
    root_id: str,
    own_id: str,
    parent_id: str | None,
    name: str,
    times_ns: tuple[int, int | None],
    attributes: dict[str, str],
    outcome: Outcome,
) -> str:
    """The span as MLflow's `Span.to_dict` writes it, ids in base64 of their bytes.

    Args:
        root_id, own_id, parent_id: of the records: whose trace, which one, and what is around it.
        name: of the span.
        times_ns: start and end, Unix nanoseconds; no end while it is under way.
        attributes: JSON texts by name.
        outcome: whether it worked.
    """
    start_ns, end_ns = times_ns
    failed = not outcome.success
    code = "UNSET" if end_ns is None else "ERROR" if failed else "OK"
    return json_text(
        {
            "trace_id": _base64(root_id),
            "span_id": _base64(span_id_of(own_id)),
            "parent_span_id": None if parent_id is None else _base64(span_id_of(parent_id)),
            "name": name,
            "start_time_unix_nano": start_ns,
            "end_time_unix_nano": end_ns,
            "events": [_exception_event(outcome, end_ns)] if failed else [],
            "status": {
                "code": f"STATUS_CODE_{code}",
                "message": f"{outcome.error_type}: {outcome.message}" if failed else "",
            },
            "attributes": attributes,
            "links": [],
        }
    )


def _exception_event(outcome: Outcome, end_ns: int | None) -> dict[str, Any]:
    """Source: OpenTelemetry semantic conventions, exceptions on spans."""
    return {
        "name": "exception",
        "time_unix_nano": end_ns,
        "attributes": {
            "exception.message": outcome.message or "",
            "exception.type": outcome.error_type or "",
            "exception.stacktrace": outcome.stack or "",
        },
    }


def _base64(hexadecimal: str) -> str:
    return binascii.b2a_base64(bytes.fromhex(hexadecimal), newline=False).decode()
