"""`/v1/traces`: MLflow takes the spans as ever, the ledger takes the calls of models among them.

MLflow answers first, so its checks, its users and its errors are its own. What it took is then
read again for GenAI spans; the client hears "done" once their calls are committed, too.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import msgspec
from fastapi import HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowledger.capture.content import encode_bounded
from flowledger.config import Settings
from flowledger.errors import RecordError, StoreError
from flowledger.integrations.genai import read_calls
from flowledger.records import Call
from flowledger.server.body import Bodies
from flowledger.server.encodings import inflate
from flowledger.server.otlp_spans import spans_of
from flowledger.server.parts import Parts
from flowledger.server.problems import answer_to, unavailable
from flowledger.store.senders import SHIPPER

__all__ = ["Otlp"]

EXPERIMENT_HEADER = "x-mlflow-experiment-id"
MARKS = (b"gen_ai.", b"llm.", b"openinference.", b"embedding.")

_log = logging.getLogger("flowledger.server")


class Otlp:
    """Stands before MLflow's app, bounds what it reads, and takes notice of spans it accepted.

    MLflow inflates whatever it is sent. So a body that is longer than ingest takes, as it is or
    inflated, is answered with 413 before MLflow sees a byte of it.

    Args:
        app: MLflow's app.
        parts: of this worker.
        path: of the route.
    """

    def __init__(self, app: ASGIApp, parts: Parts, path: str) -> None:
        self._app = app
        self._parts = parts
        self._path = path
        self._bodies = Bodies(parts.settings)
        self._inflating = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as MLflow does, or with 429 or 503 when the ledger cannot follow."""
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as held:
            request = Request(scope, receive)
            heard = _Heard(receive, lambda: self._read(request, held))
            answer = await self._answer(scope, heard, request.headers)
        if isinstance(answer, HTTPException):
            await answer_to(answer)(scope, receive, send)
            return
        for message in answer:
            await send(message)

    async def _answer(
        self, scope: Scope, heard: "_Heard", headers: Headers
    ) -> list[Message] | HTTPException:
        """What MLflow answers, or why it or the ledger does not take the spans."""
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, heard.receive, keep)
        if heard.refusal is not None:
            return heard.refusal
        try:
            if answer and answer[0].get("status") == 200:
                await self._take(heard.data, headers)
        except HTTPException as exc:
            return exc
        return answer

    async def _read(self, request: Request, held: AsyncExitStack) -> tuple[bytes, bytes]:
        """A request's body as it was sent, and inflated; both count until `held` is closed."""
        body = await held.enter_async_context(self._bodies.read(request))
        encoding = ", ".join(request.headers.getlist("content-encoding"))
        most = self._parts.settings.max_json_bytes
        if not _is_json(request.headers):
            most = max(most, self._parts.settings.max_batch_bytes)
        async with self._inflating:  # one at a time, so that what is not counted yet is bounded
            data = await run_in_threadpool(inflate, body, encoding, most)
            if data is not body:
                held.enter_context(self._bodies.hold(len(data)))
        return body, data

    async def _take(self, data: bytes, headers: Headers) -> None:
        calls = await run_in_threadpool(self._calls, data, headers)
        if not calls:
            return
        experiment_id = int(headers[EXPERIMENT_HEADER])
        experiment = await self._parts.ask(lambda: self._experiment(experiment_id))
        most = self._parts.settings.max_records
        for start in range(0, len(calls), most):
            await self._store(calls[start : start + most], experiment)

    async def _store(self, calls: Sequence[Call], experiment: str) -> None:
        refused = await self._parts.beside_traces.write(
            lambda: _encoded(calls, experiment), SHIPPER
        )
        for refusal in refused:
            _log.warning("a call of a span is not stored: %s", refusal.reason)

    def _calls(self, data: bytes, headers: Headers) -> list[Call]:
        """The calls in a body that MLflow could read; none where we cannot."""
        try:
            if not any(mark in data for mark in MARKS):
                return []
            return read_calls(spans_of(data, is_json=_is_json(headers)))
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
    """What MLflow reads of a request: nothing before it asks, and the whole body then.

    MLflow asks once it knows who sends, so nobody unknown has a body read or inflated here. Where
    the body is refused MLflow reads an empty one, and its answer is not used.
    """

    def __init__(
        self, receive: Receive, read: Callable[[], Awaitable[tuple[bytes, bytes]]]
    ) -> None:
        self._receive = receive
        self._read = read
        self._is_read = False
        self.data = b""
        self.refusal: HTTPException | None = None

    async def receive(self) -> Message:
        """The body, and after it that the client went away."""
        if self._is_read:
            return await self._receive()
        self._is_read, body = True, b""
        try:
            body, self.data = await self._read()
        except HTTPException as exc:
            self.refusal = exc
        return {"type": "http.request", "body": body, "more_body": False}


def _is_json(headers: Headers) -> bool:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json"


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
