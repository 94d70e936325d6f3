"""Traces that MLflow archived: their spans are a file in an artifact store, not rows any more.

MLflow's archival empties `spans.content`, puts a `traces.pb` under the URI in the trace's tag
`mlflow.trace.archiveLocation`, and names the archive as where the spans are.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from flowledger.store.entries import json_text
from flowledger.store.leaves import KEPT
from flowledger.store.writers import Writer

__all__ = [
    "ARCHIVED_TABLES",
    "ARCHIVE_LOCATION",
    "Archived",
    "scrub_archive",
]

ARCHIVE_LOCATION = "mlflow.trace.archiveLocation"
SPANS_LOCATION = "mlflow.trace.spansLocation"
IN_DATABASE, IN_ARCHIVE = "TRACKING_STORE", "ARCHIVE_REPO"
ARCHIVED_TABLES = ("spans", "trace_tags")


class Archived:
    """Those of some traces that MLflow archived.

    Args:
        writer, cursor: the database.
        traces: ids of traces.
    """

    def __init__(self, writer: Writer, cursor: Any, traces: Sequence[str]) -> None:
        writer.among(
            cursor,
            f"SELECT request_id, value FROM trace_tags WHERE key = '{ARCHIVE_LOCATION}'"
            " AND request_id IN ({ids})",
            list(traces),
        )
        self.locations = {str(trace): str(uri) for trace, uri in cursor.fetchall()}
        self._spans: dict[str, dict[str, str]] = {}

    def as_stored(self, table: str, trace: str, rows: Sequence[Any]) -> list[Any] | None:
        """Return rows of a trace as they were before it was archived.

        Args:
            table: of the rows.
            trace: one of `locations`.
            rows: in the order of `Kept.columns`.

        Returns:
            None when the archive cannot be read, or has not all of the spans.
        """
        stored = []
        for row in rows:
            named = dict(zip(KEPT[table].columns, row, strict=True))
            if table == "spans" and named["content"] == "":
                named["content"] = self._content(trace, str(named["span_id"]))
                if named["content"] is None:
                    return None
            elif (named.get("key"), named.get("value")) == (SPANS_LOCATION, IN_ARCHIVE):
                named["value"] = IN_DATABASE
            stored.append(tuple(named.values()))
        return stored

    def _content(self, trace: str, span_id: str) -> str | None:
        if trace not in self._spans:
            try:
                spans = _download(self.locations[trace])
            except Exception:  # noqa: BLE001 - every kind of artifact store has errors of its own
                spans = []
            self._spans = {trace: {span.span_id: _content(span.to_dict()) for span in spans}}
        return self._spans[trace].get(span_id)


def scrub_archive(uri: str, span_ids: Collection[str], without_texts: Callable[[str], str]) -> None:
    """Take the texts of some spans out of an archived trace that others have spans in.

    Args:
        uri: of the archive.
        span_ids: the spans.
        without_texts: makes the content of a span without its texts.

    Raises:
        Exception: whatever the artifact store says; `FileNotFoundError` when nothing is there.
    """
    from mlflow.entities.span import Span
    from mlflow.tracing.otel.otel_archival import spans_to_traces_data_pb

    from flowledger.store.uploads import repository_of

    spans = _download(uri)
    if not spans:
        raise FileNotFoundError("no archived spans can be read there")
    left = [
        Span.from_dict(msgspec.json.decode(without_texts(json_text(span.to_dict()))))
        if span.span_id in span_ids
        else span
        for span in spans
    ]
    repository_of(uri).upload_archived_trace_data_bytes(spans_to_traces_data_pb(left))


def _download(uri: str) -> list[Any]:
    from flowledger.store.uploads import repository_of

    return list(repository_of(uri).download_archived_trace_data().spans)


def _content(span: dict[str, Any]) -> str:
    """The JSON that a span was stored as; the archive has the same values, spaced differently."""
    attributes = span["attributes"]
    tight = {key: json_text(msgspec.json.decode(text)) for key, text in attributes.items()}
    return json_text({**span, "attributes": tight})
