"""`/v1/traces`: MLflow takes the spans as ever, the ledger takes the calls of models among them.

MLflow answers first, so its checks, its users and its errors are its own. What it took is then
read again for GenAI spans; the client hears "done" once their calls are committed, too.
"""

import logging
from collections.abc import Sequence

import msgspec
from fastapi import HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowledger.capture.content import encode_bounded
from flowledger.config import Settings
from flowledger.errors import RecordError, StoreError
from flowledger.integrations.genai import read_calls
from flowledger.records import Call
from flowledger.server.callers import ANYONE
from flowledger.server.encodings import inflate
from flowledger.server.otlp_spans import spans_of
from flowledger.server.parts import Parts
from flowledger.server.problems import answer_to, unavailable

__all__ = ["Otlp"]

EXPERIMENT_HEADER = "x-mlflow-experiment-id"
MARKS = (b"gen_ai.", b"llm.", b"openinference.", b"embedding.")

_log = logging.getLogger("flowledger.server")


class Otlp:
    """Stands before MLflow's app, and takes notice of spans that it accepted.

    A request whose body is longer than ingest takes is MLflow's alone, and so is one in an encoding
    not known here: the log says so.

    Args:
        app: MLflow's app.
        parts: of this worker.
        path: of the route.
    """

    def __init__(self, app: ASGIApp, parts: Parts, path: str) -> None:
        self._app = app
        self._parts = parts
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as MLflow does, or with 429 or 503 when the ledger cannot follow."""
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        heard = _Heard(receive, self._parts.settings.max_body_bytes)
        answer: list[Message] = []

        async def hold(message: Message) -> None:
            answer.append(message)

        await self._app(scope, heard.receive, hold)
        try:
            if answer and answer[0].get("status") == 200:
                await self._take(heard, Headers(scope=scope))
        except HTTPException as exc:
            await answer_to(exc)(scope, receive, send)
            return
        for message in answer:
            await send(message)

    async def _take(self, heard: "_Heard", headers: Headers) -> None:
        if heard.body is None:
            _log.warning("a batch of spans is MLflow's alone: it is longer than max_body_bytes")
            return
        calls = await run_in_threadpool(self._calls, bytes(heard.body), headers)
        if not calls:
            return
        experiment_id = int(headers[EXPERIMENT_HEADER])
        experiment = await self._parts.ask(lambda: self._experiment(experiment_id))
        most = self._parts.settings.max_records
        for start in range(0, len(calls), most):
            await self._store(calls[start : start + most], experiment)

    async def _store(self, calls: Sequence[Call], experiment: str) -> None:
        refused = await self._parts.beside_traces.write(
            lambda: _encoded(calls, experiment), ANYONE.sender
        )
        for refusal in refused:
            _log.warning("a call of a span is not stored: %s", refusal.reason)

    def _calls(self, body: bytes, headers: Headers) -> list[Call]:
        """The calls in a body that MLflow could read; none where we cannot."""
        encoding = headers.get("content-encoding", "")
        try:
            data = inflate(body, encoding, self._parts.settings.max_json_bytes)
            if not any(mark in data for mark in MARKS):
                return []
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            return read_calls(spans_of(data, is_json=kind == "application/json"))
        except Exception as exc:  # noqa: BLE001 - MLflow has the batch, and its client is to hear so
            detail = getattr(exc, "detail", type(exc).__name__)
            _log.warning("a batch of spans is MLflow's alone: %s", detail)
            return []

    def _experiment(self, experiment_id: int) -> str:
        try:
            name = self._parts.database.experiment_name(experiment_id)
        except StoreError as exc:
            raise unavailable("the database does not answer now: send the batch again") from exc
        if name is None:
            raise unavailable(f"experiment {experiment_id} was removed meanwhile: send again")
        return name


class _Heard:
    """What MLflow reads of a request, kept as long as it is no longer than `most` bytes."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self.body: bytearray | None = bytearray()

    async def receive(self) -> Message:
        """The next part of the request."""
        message = await self._receive()
        if self.body is not None:
            self.body += message.get("body", b"")
            if len(self.body) > self._most:
                self.body = None
        return message


def _encoded(calls: Sequence[Call], experiment: str) -> list[bytes]:
    """Calls as records of this experiment, their content bounded as an application does."""
    payloads: list[bytes] = []
    for call in calls:
        feature = call.feature or call.tags.get("service_name")
        placed = msgspec.structs.replace(call, experiment=experiment, feature=feature)
        try:
            payloads.append(encode_bounded(placed, Settings().max_content_bytes))
        except RecordError as exc:
            _log.warning("a call of a span is not stored: %s", exc)
    return payloads
