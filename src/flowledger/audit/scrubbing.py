"""Taking the content of records out of every table, and leaving what is counted.

What stays is named here, so what nobody thought of goes. Erasing a user also puts a made-up name in
the place of theirs and of their sessions.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from flowledger.audit.archived import ARCHIVE_LOCATION, Archived
from flowledger.store.chain import current_leaves, row_leaves
from flowledger.store.entries import USAGE_DETAILS
from flowledger.store.leaves import Leaves
from flowledger.store.rollup_queue import queue_rebuilds
from flowledger.store.writers import Writer

__all__ = ["Renaming", "archived_around", "scrub", "without_texts"]

IDENTITY = ("user_id", "session_id")
FACT_PARAMS = (
    *("model", "provider", "feature", "operation", "function", "temperature", "max_tokens"),
    *("persona_id", "audit_reason", *IDENTITY),
)
FACT_TAGS = (
    *("mlflow.runName", "mlflow.user", "persona_id", "user_role", "environment", "feature"),
    *("audit_reason", "status", "error_type", "prompt_version", "flowledger.id", *IDENTITY),
    *("mlflow.parentRunId", "mlflow.rootRunId"),
)
CONTENT_TAGS = ("error", "error_stack", "mlflow.note.content")
FACT_METRICS = (
    *("input_tokens", "output_tokens", "total_tokens", "cost_usd", "latency_ms"),
    *("time_to_first_token_ms", "success", "latency_seconds", *USAGE_DETAILS),
)
FACT_TRACE_TAGS = (
    *("mlflow.artifactLocation", "mlflow.trace.spansLocation", "feature"),
    ARCHIVE_LOCATION,  # MLflow cannot read the trace without it
)
FACT_METADATA = (
    *("mlflow.trace_schema.version", "mlflow.trace.infoFinalized", "mlflow.sourceRun"),
    "mlflow.trace.user",
)
FACT_ATTRIBUTES = (
    *("mlflow.traceRequestId", "mlflow.spanType", "mlflow.spanLogLevel", "error.type"),
    *("mlflow.chat.tokenUsage", "mlflow.llm.cost", "mlflow.llm.model", "mlflow.llm.provider"),
    *("gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model"),
    *("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.operation.name"),
    *("gen_ai.request.temperature", "gen_ai.request.top_p", "gen_ai.request.max_tokens"),
    *("gen_ai.request.seed", "flowledger.run_id", "flowledger.total_tokens"),
    *("flowledger.cost_usd", *USAGE_DETAILS.values()),
)
IDENTITY_ATTRIBUTES = ("user.id", "gen_ai.conversation.id")
LONGEST_TAG = 250
HIGHEST = 20
TAKEN_OUT = "the content was taken out of the record"


class Renaming(NamedTuple):
    """Made-up names in the place of a user's own; nobody can turn them back.

    `session` makes the name of a session.
    """

    user: str
    name: str
    session: Callable[[str], str]

    def of_text(self, text: str | None) -> str | None:
        """The text without the user's name, where that stands in it as a word."""
        if text is None or self.user not in text:
            return text
        return re.sub(rf"(?<!\w){re.escape(self.user)}(?!\w)", self.name, text)


def scrub(writer: Writer, cursor: Any, ids: Sequence[str], renaming: Renaming | None) -> Leaves:
    """Take the content of calls and jobs out of every table, in the transaction of the cursor.

    Args:
        writer, cursor: the database, in a transaction.
        ids: of calls, jobs and lone spans.
        renaming: also erases who they are of, and what their owners named themselves.

    Returns:
        The leaves of what is left.
    """
    work = _Scrubbing(writer, cursor, ids, renaming)
    spans = work.spans()
    work.key_values()
    work.single_rows()
    leaves = current_leaves(writer, cursor, ids)
    leaves.rows = row_leaves(writer, cursor, spans)
    return leaves


def archived_around(writer: Writer, cursor: Any, ids: Sequence[str]) -> dict[str, set[str]]:
    """Return the spans that these calls have in archived traces of jobs around them.

    Args:
        writer, cursor, ids: as for `scrub`.

    Returns:
        Ids of spans by the URI of the archive.
    """
    spans: dict[str, set[str]] = {}
    for trace, span, content in _Scrubbing(writer, cursor, ids, None).spans_of_jobs():
        if not content:
            spans.setdefault(trace, set()).add(span)
    locations = Archived(writer, cursor, sorted(spans)).locations
    return {uri: spans[trace] for trace, uri in locations.items()}


class _Scrubbing:
    """One portion of records on its way out."""

    def __init__(
        self, writer: Writer, cursor: Any, ids: Sequence[str], renaming: Renaming | None
    ) -> None:
        self._writer = writer
        self._cursor = cursor
        self._ids = list(ids)
        self._traces = [f"tr-{one}" for one in ids]
        self._renaming = renaming

    def key_values(self) -> None:
        """Names and values: what is no fact is deleted."""
        runs, traces = ("run_uuid", self._ids), ("request_id", self._traces)
        self._keep("params", runs, FACT_PARAMS)
        if self._renaming is None:
            some = ", ".join(f"'{key}'" for key in CONTENT_TAGS)
            self._run(
                "DELETE FROM tags WHERE run_uuid IN ({ids})"
                f" AND (key IN ({some}) OR length(value) > {LONGEST_TAG})",
                self._ids,
            )
        else:
            self._keep("tags", runs, FACT_TAGS)
            self._keep("metrics", runs, FACT_METRICS)
            self._keep("latest_metrics", runs, FACT_METRICS)
            self._run("DELETE FROM llm_tags WHERE call_id IN ({ids})", self._ids)
        self._keep("trace_tags", traces, FACT_TRACE_TAGS)
        self._keep("trace_request_metadata", traces, FACT_METADATA)
        for table, column in (("params", "run_uuid"), ("tags", "run_uuid")):
            self._rename_pairs(table, column, self._ids)
        self._rename_pairs("trace_request_metadata", "request_id", self._traces)

    def single_rows(self) -> None:
        """Rows that stay, with their texts empty, and those that go whole."""
        self._run(
            "UPDATE trace_info SET request_preview = NULL, response_preview = NULL,"
            " client_request_id = NULL WHERE request_id IN ({ids})",
            self._traces,
        )
        queue_rebuilds(self._writer, self._cursor, self._traces)  # of what assessments came to
        self._run("DELETE FROM assessments WHERE trace_id IN ({ids})", self._traces)
        self._run("DELETE FROM assessments WHERE run_id IN ({ids})", self._ids)
        self._run(
            "DELETE FROM input_tags WHERE input_uuid IN"
            " (SELECT input_uuid FROM inputs WHERE destination_id IN ({ids}))",
            self._ids,
        )
        self._run("DELETE FROM inputs WHERE destination_id IN ({ids})", self._ids)
        self._run("DELETE FROM llm_artifacts WHERE run_id IN ({ids})", self._ids)
        self._ledger()
        if self._renaming is not None:
            self._change("runs", ("run_uuid",), "user_id", self._ids, self._user)
            self._change("trace_info", ("request_id",), "session_id", self._traces, self._session)

    def spans(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Spans without what was asked and answered; returns those in traces of others."""
        own = self._rows("SELECT trace_id, span_id, content FROM spans", "trace_id", self._traces)
        around = self.spans_of_jobs()
        # Without a text: MLflow archived the trace.
        rows = [row for row in (*own, *around) if row[2]]
        changed = [(without_texts(text, self._renaming), trace, span) for trace, span, text in rows]
        self._many("UPDATE spans SET content = ? WHERE trace_id = ? AND span_id = ?", changed)
        return [("spans", (trace, span)) for trace, span, _ in around]

    def spans_of_jobs(self) -> list[tuple[Any, ...]]:
        """The spans that these calls have in the traces of jobs around them."""
        wanted = {one[16:] for one in self._ids}
        roots = self._around() - set(self._ids)
        traces = sorted(f"tr-{root}" for root in roots)
        rows = self._rows("SELECT trace_id, span_id, content FROM spans", "trace_id", traces)
        return [row for row in rows if row[1] in wanted]

    def _around(self) -> set[str]:
        """Every job and call that these were made in."""
        found: set[str] = set()
        level = set(self._ids)
        for _ in range(HIGHEST):
            parents = {
                row[0]
                for row in (
                    *self._rows("SELECT parent_id FROM llm_calls", "id", sorted(level)),
                    *self._rows(
                        "SELECT value FROM tags",
                        "run_uuid",
                        sorted(level),
                        " AND key IN ('mlflow.parentRunId', 'mlflow.rootRunId')",
                    ),
                )
                if row[0]
            }
            level = parents - found
            if not level:
                break
            found |= level
        return found

    def _ledger(self) -> None:
        query = "SELECT details, user_id, session_id, audit_reason, id FROM llm_calls"
        rows = self._rows(query, "id", self._ids)
        changed = [
            (
                _without_own(details, erased=self._renaming is not None),
                self._user(user),
                self._session(session),
                self._text(reason),
                call_id,
            )
            for details, user, session, reason, call_id in rows
        ]
        self._many(
            "UPDATE llm_calls SET content = NULL, error_message = NULL, details = ?, user_id = ?,"
            " session_id = ?, audit_reason = ? WHERE id = ?",
            changed,
        )
        if self._renaming is not None:
            self._run(
                "UPDATE llm_calls SET intent = NULL, module = NULL, tab = NULL WHERE id IN ({ids})",
                self._ids,
            )

    def _rename_pairs(self, table: str, column: str, owners: list[str]) -> None:
        if self._renaming is None:
            return
        keys = {
            "user_id": self._user,
            "mlflow.user": self._user,
            "mlflow.trace.user": self._user,
            "session_id": self._session,
            "audit_reason": self._text,
        }
        some = ", ".join(f"'{key}'" for key in keys)
        rows = self._rows(
            f"SELECT key, value, {column} FROM {table}", column, owners, f" AND key IN ({some})"
        )
        changed = [(keys[key](value), key, owner) for key, value, owner in rows]
        self._many(f"UPDATE {table} SET value = ? WHERE key = ? AND {column} = ?", changed)

    def _change(
        self,
        table: str,
        key: tuple[str],
        column: str,
        owners: list[str],
        change: Callable[[str | None], str | None],
    ) -> None:
        rows = self._rows(f"SELECT {column}, {key[0]} FROM {table}", key[0], owners)
        changed = [(change(value), owner) for value, owner in rows]
        self._many(f"UPDATE {table} SET {column} = ? WHERE {key[0]} = ?", changed)

    def _user(self, user: str | None) -> str | None:
        renaming = self._renaming
        return renaming.name if renaming is not None and user == renaming.user else user

    def _session(self, session: str | None) -> str | None:
        renaming = self._renaming
        return renaming.session(session) if renaming is not None and session else session

    def _text(self, text: str | None) -> str | None:
        return text if self._renaming is None else self._renaming.of_text(text)

    def _keep(self, table: str, of: tuple[str, list[str]], keys: Sequence[str]) -> None:
        column, owners = of
        some = ", ".join(f"'{key}'" for key in keys)
        self._run(
            f"DELETE FROM {table} WHERE {column} IN ({{ids}}) AND key NOT IN ({some})", owners
        )

    def _rows(
        self, select: str, column: str, owners: Sequence[str], also: str = ""
    ) -> list[tuple[Any, ...]]:
        if not owners:
            return []
        self._run(f"{select} WHERE {column} IN ({{ids}}){also}", owners)
        return [tuple(row) for row in self._cursor.fetchall()]

    def _run(self, statement: str, ids: Sequence[str]) -> None:
        self._writer.among(self._cursor, statement, list(ids))

    def _many(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            self._cursor.executemany(statement.replace("?", self._writer.mark), rows)


def without_texts(content: str, renaming: Renaming | None) -> str:
    """A span as it was, without what was asked, answered and raised."""
    span = msgspec.json.decode(content)
    attributes = span.get("attributes") or {}
    kept = {key: attributes[key] for key in FACT_ATTRIBUTES if key in attributes}
    if renaming is None:
        kept |= {key: attributes[key] for key in IDENTITY_ATTRIBUTES if key in attributes}
    span["attributes"] = kept
    span["events"] = []
    status = span.get("status") or {}
    if status.get("message"):
        status["message"] = attributes.get("error.type", "").strip('"')
    return msgspec.json.encode(span).decode()


def _without_own(details: str, *, erased: bool) -> str:
    """Details of a call without the caller's texts; own metrics and tags stay in a purge."""
    found = msgspec.json.decode(details)
    settings = {
        key: value
        for key, value in found.get("settings", {}).items()
        if isinstance(value, int | float)
    }
    kept: dict[str, Any] = {"settings": settings, "notes": [TAKEN_OUT]}
    if not erased:
        kept["metrics"] = found.get("metrics", {})
        kept["tags"] = {
            key: value
            for key, value in found.get("tags", {}).items()
            if len(str(value)) <= LONGEST_TAG
        }
    return msgspec.json.encode({name: value for name, value in kept.items() if value}).decode()
