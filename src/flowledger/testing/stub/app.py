"""The stub's routes: read a request, do to it what the caller asked for, and answer."""

import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from flowledger.testing.stub import anthropic, chat, media, responses, wire
from flowledger.testing.stub.answers import count, seed_of
from flowledger.testing.stub.batches import Batches
from flowledger.testing.stub.said import Answer, Ask, encode
from flowledger.testing.stub.steering import Failures, Refusal, Steer, refusal, steering

_ENDPOINTS: dict[str, Callable[[Ask], Answer]] = {
    "/v1/chat/completions": chat.chat,
    "/v1/completions": chat.completions,
    "/v1/embeddings": media.embeddings,
    "/v1/images/generations": media.images,
    "/v1/responses": responses.responses,
    "/v1/audio/transcriptions": media.transcriptions,
    "/v1/messages": anthropic.messages,
    "/v1/messages/count_tokens": anthropic.count_tokens,
}
# What does not change the answer: the same question has the same answer as a stream.
_UNASKED = ("stream", "stream_options", "encoding_format", "user", "metadata", "store")
_SECRETS = ("authorization", "api-key", "x-api-key", "cookie")
_EVENTS = "text/event-stream"
_RANDOM_ERRORS = (429, 500, 503)
_NOT_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using "
    "your HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not "
    "valid JSON.)"
)


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One request as the stub got it: header names in lower case, secrets replaced by `***`.

    `json` is the body, or the fields of a form; None when it was neither.
    """

    method: str
    path: str
    headers: dict[str, str]
    json: Any = None


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every request that does not ask for something else."""

    error_rate: float = 0.0
    latency_ms: float = 0.0
    ms_per_token: float = 0.0


class StubApp:
    """The stub as an ASGI application; `hang_up` closes the connection of a request."""

    def __init__(self, defaults: Defaults, hang_up: Callable[[Scope], None], keep: int) -> None:
        self.received: deque[Received] = deque(maxlen=keep)
        self.total = 0
        self._defaults = defaults
        self._hang_up = hang_up
        self._failures = Failures()
        self._batches = Batches(_answered)
        self._asgi = Starlette(
            routes=_routes(self),
            exception_handlers={Refusal: self._refuse, HTTPException: self._refuse_url},
        )
        self._asgi.router.redirect_slashes = False
        # Loads the tokenizer now, not while a client waits.
        count("")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            await self._asgi(scope, receive, send)
        except ClientDisconnect:
            # Its caller is gone; there is nobody to tell.
            return

    async def health(self, _request: Request) -> Response:
        """Answer GET /health."""
        return _json({"status": "ok", "requests": self.total})

    async def models(self, request: Request) -> Response:
        """Answer GET /v1/models."""
        self._note(request, None)
        return _json(media.models())

    async def model(self, request: Request) -> Response:
        """Answer GET /v1/models/{name}."""
        self._note(request, None)
        return _json(media.model(request.path_params["name"]))

    async def answer(self, request: Request) -> Response:
        """Answer every POST."""
        body = await wire.read(request)
        fields, file = wire.parsed(request.headers.get("content-type", ""), body)
        self._note(request, fields)
        if not isinstance(fields, dict):
            raise Refusal(400, _NOT_JSON)
        ask = _ask(request.url.path, request.headers, fields, file)
        return await self._steered(request, ask, self._faults_due(ask, request.headers))

    async def batches(self, request: Request) -> Response:
        """Answer whatever concerns files and batches."""
        body = await wire.read(request)
        fields, file = wire.parsed(request.headers.get("content-type", ""), body)
        self._note(request, fields)
        answer = self._batches.answer(request.method, request.url.path, fields, file)
        return Response(answer.body, headers=self._headers(), media_type=answer.media_type)

    def _note(self, request: Request, fields: Any) -> None:
        headers = {
            name: "***" if name in _SECRETS else value for name, value in request.headers.items()
        }
        self.total += 1
        path = request.url.path
        one = Received(method=request.method, path=path, headers=headers, json=fields)
        self.received.append(one)

    async def _steered(self, request: Request, ask: Ask, steer: Steer) -> Response:
        if steer.mode == "hang":
            return wire.Silence()
        if steer.status is not None:
            await wire.left_within(request, self._delay(steer, 0))
            refuse = anthropic.refusal if anthropic.serves(request.url.path) else refusal
            raise refuse(steer.status, steer.retry_after)
        answer = _ENDPOINTS[request.url.path](ask)
        tokens = answer.tokens if answer.events is None else 0
        if await wire.left_within(request, self._delay(steer, tokens)):
            return wire.Silence()
        return self._streamed(answer, steer) if answer.events else self._plain(answer, steer)

    def _faults_due(self, ask: Ask, headers: Mapping[str, str]) -> Steer:
        """The caller's wishes, without the fault when it has failed often enough."""
        steer = ask.steer
        faulty = steer.status is not None or steer.mode is not None
        if steer.fail_times is not None:
            key = steer.key or headers.get("idempotency-key") or str(ask.seed)
            if not self._failures.due(key, steer.fail_times):
                return msgspec.structs.replace(steer, status=None, mode=None)
            return steer if faulty else msgspec.structs.replace(steer, status=500)
        if not faulty and ask.seed / 2**64 < self._defaults.error_rate:
            status = random.Random(ask.seed).choice(_RANDOM_ERRORS)
            return msgspec.structs.replace(steer, status=status)
        return steer

    def _delay(self, steer: Steer, tokens: int) -> float:
        if steer.delay is not None:
            return steer.delay
        return (self._defaults.latency_ms + self._defaults.ms_per_token * tokens) / 1000

    def _plain(self, answer: Answer, steer: Steer) -> Response:
        body = answer.body
        if steer.mode == "malformed":
            body = body[: len(body) // 2]
        whole = Response(body, headers=self._headers(), media_type=answer.media_type)
        return wire.Cut(whole, self._hang_up) if steer.mode == "cut" else whole

    def _streamed(self, answer: Answer, steer: Steer) -> Response:
        events = answer.events or iter(())
        if steer.mode == "cut":
            whole = Response(b"".join(events), headers=self._headers(), media_type=_EVENTS)
            del whole.headers["content-length"]
            return wire.Cut(whole, self._hang_up)
        events = wire.spoilt(events, answer.broken) if steer.mode == "malformed" else events
        pause = steer.chunk_delay
        if pause is None:
            pause = self._defaults.ms_per_token / 1000
        stream = wire.paced(events, pause)
        return StreamingResponse(stream, headers=self._headers(), media_type=_EVENTS)

    def _headers(self) -> dict[str, str]:
        number = f"req_{self.total:08d}"
        return {"x-request-id": number, "request-id": number, "openai-version": "2020-10-01"}

    async def _refuse(self, request: Request, exc: Exception) -> Response:
        assert isinstance(exc, Refusal)
        headers = self._headers() | exc.headers
        body: dict[str, Any] = {"error": exc.error}
        if anthropic.serves(request.url.path):
            body = anthropic.error_body(exc, headers["request-id"])
        return _json(body, exc.status, headers)

    async def _refuse_url(self, request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        self._note(request, None)
        method, path = request.method, request.url.path
        if exc.status_code == 405:
            message = (
                f"Not allowed to {method} on {path}. (HINT: Perhaps you meant another method?)"
            )
            refused = Refusal(405, message, code="method_not_supported", headers=exc.headers)
        else:
            refused = Refusal(404, f"Invalid URL ({method} {path})")
        return await self._refuse(request, refused)


def _routes(app: StubApp) -> list[Route]:
    posts = [Route(path, app.answer, methods=["POST"]) for path in _ENDPOINTS]
    return [
        *posts,
        Route("/v1/files", app.batches, methods=["POST"]),
        Route("/v1/files/{name}/content", app.batches),
        Route("/v1/batches", app.batches, methods=["POST"]),
        Route("/v1/batches/{name}", app.batches),
        Route("/v1/messages/batches", app.batches, methods=["POST"]),
        Route("/v1/messages/batches/{name}", app.batches),
        Route("/v1/messages/batches/{name}/results", app.batches),
        Route("/v1/models", app.models),
        Route("/v1/models/{name:path}", app.model),
        Route("/health", app.health),
    ]


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(encode(value), status, headers, media_type="application/json")


def _ask(path: str, headers: Mapping[str, str], fields: dict[str, Any], file: bytes) -> Ask:
    steer, model = steering(headers, fields.get("model"))
    body = fields | {"model": model} if "model" in fields else fields
    asked = {name: value for name, value in body.items() if name not in _UNASKED}
    return Ask(body=body, steer=steer, seed=seed_of(path, asked, file), audio=file)


def _answered(path: str, body: dict[str, Any]) -> bytes:
    """The answer to one request of a batch.

    Raises:
        Refusal: it is an error.
    """
    ask = _ask(path, {}, body, b"")
    if ask.steer.status is not None:
        refuse = anthropic.refusal if anthropic.serves(path) else refusal
        raise refuse(ask.steer.status, ask.steer.retry_after)
    if path not in _ENDPOINTS:
        raise Refusal(400, f"Invalid URL (POST {path})")
    return _ENDPOINTS[path](ask).body
