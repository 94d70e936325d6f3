"""Ingest: calls over HTTP, answered only once they are committed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from flowledger.server.batches import JsonBatch, experiments_of, read_frames, read_json, runs_of
from flowledger.server.body import Bodies
from flowledger.server.callers import Caller, caller_of
from flowledger.server.encodings import ENCODINGS, inflate
from flowledger.server.parts import Parts
from flowledger.server.problems import Problem, documented
from flowledger.store import Refusal
from flowledger.store.http import FRAMES

__all__ = ["CALLS_PATH", "router"]

PREFIX = "/api/flowledger/v1"
CALLS_PATH = f"{PREFIX}/calls"
JSON = "application/json"


class Refused(BaseModel):
    """A record that the store will never take."""

    index: int = Field(description="Its place in the request, from 0.", ge=0)
    reason: str = Field(description="Why, in a sentence.")


class Taken(BaseModel):
    """What became of a batch. It is committed."""

    stored: int = Field(description="Records the store has, those it had before included.", ge=0)
    refused: list[Refused] = Field(description="Records that were not taken; all others are.")
    ids: list[str | None] | None = Field(
        default=None, description="For JSON: the id of each call in its place, null where refused."
    )


class NothingTaken(Problem):
    """No call of a JSON request could be stored; `refused` says why, for each."""

    refused: list[Refused] | None = None


def router(parts: Parts) -> APIRouter:
    """The route that takes calls, as journal frames or as JSON."""
    routes = APIRouter(prefix=PREFIX, tags=["ingest"])
    routes.add_api_route(
        "/calls",
        _Ingest(parts).calls,
        methods=["POST"],
        operation_id="store_calls",
        response_model=Taken,
        response_model_exclude_none=True,
        responses={422: {"model": NothingTaken}, **ANSWERS},
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    return routes


class _Answer(NamedTuple):
    """What to answer, and what of it is counted."""

    content: Taken | JSONResponse
    status: int
    refused: int


class _Ingest:
    """The route, over the parts of a worker."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._bodies = Bodies(parts.settings)

    async def calls(self, request: Request) -> Any:
        """Store a batch of calls; answered once it is committed.

        Sending a call again changes nothing: its id is known already. A record that cannot be
        stored is refused with a reason, and the rest is stored. With 408, 429 and 503 nothing is
        promised: keep the batch and send it again.
        """
        metrics = self._parts.metrics
        metrics.batch_begins()
        status, refused = 500, 0
        try:
            content, status, refused = await self._take(request)
        except HTTPException as exc:
            status = exc.status_code
            raise
        finally:
            metrics.batch_ends(status, refused)
        return content

    async def _take(self, request: Request) -> _Answer:
        is_json = _content_type(request) == JSON
        async with self._bodies.read(request) as body:
            return await (self._take_json if is_json else self._take_frames)(request, body)

    async def _take_frames(self, request: Request, body: bytes) -> _Answer:
        payloads: list[bytes] = []

        def read() -> Sequence[bytes]:
            data = inflate(body, _encoding(request), self._settings.max_batch_bytes)
            payloads.extend(read_frames(data, self._settings.max_records))
            self._check_permission(caller_of(request), payloads)
            return payloads

        refused = _listed(await self._parts.sinks.write(read, caller_of(request).sender))
        return _Answer(
            Taken(stored=len(payloads) - len(refused), refused=refused), 200, len(refused)
        )

    async def _take_json(self, request: Request, body: bytes) -> _Answer:
        batches: list[JsonBatch] = []

        def read() -> Sequence[bytes]:
            data = inflate(body, _encoding(request), self._settings.max_json_bytes)
            batches.append(read_json(data, self._settings.max_records))
            self._check_permission(caller_of(request), batches[0].payloads)
            return batches[0].payloads

        refusals = await self._parts.sinks.write(read, caller_of(request).sender)
        return _json_answer(batches[0], batches[0].placed(refusals))

    def _check_permission(self, caller: Caller, payloads: Sequence[bytes]) -> None:
        """A user writes only where MLflow lets that user; a key is made for all calls."""
        if self._parts.users is None or caller.kind != "user" or caller.is_admin:
            return
        added_to = self._parts.database.experiments_of(runs_of(payloads))
        self._parts.users.let_write(caller, experiments_of(payloads) | added_to)


def _content_type(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (FRAMES, JSON):
        raise HTTPException(
            415, f"content type {kind[:80]!r}: send {JSON}, or journal frames as {FRAMES}"
        )
    return kind


def _encoding(request: Request) -> str:
    return ", ".join(request.headers.getlist("content-encoding"))


def _listed(refusals: Sequence[Refusal]) -> list[Refused]:
    return [Refused(index=refusal.place, reason=refusal.reason) for refusal in refusals]


def _json_answer(batch: JsonBatch, refusals: Sequence[Refusal]) -> _Answer:
    refused, count = _listed(refusals), len(batch.ids)
    if len(refused) < count:
        ids = batch.kept(refusals)
        taken = Taken(stored=count - len(refused), refused=refused, ids=ids)
        return _Answer(taken, 200, len(refused))
    nothing = NothingTaken(detail=_first_reason(refusals), refused=refused)
    return _Answer(JSONResponse(nothing.model_dump(), 422), 422, count)


def _first_reason(refusals: Sequence[Refusal]) -> str:
    first = refusals[0]
    if len(refusals) == 1:
        return first.reason
    return f"none of {len(refusals)} calls can be stored; call {first.place}: {first.reason}"


REQUEST_BODY = {
    "required": True,
    "description": "Calls: as JSON, one or a list, or as frames of flowledger's journal. A header "
    f"`Content-Encoding` says how the body is compressed: {' or '.join(ENCODINGS)}.",
    "content": {
        JSON: {
            "schema": {
                "oneOf": [
                    {"$ref": "#/components/schemas/Call"},
                    {
                        "type": "array",
                        "minItems": 1,
                        "items": {"$ref": "#/components/schemas/Call"},
                    },
                ]
            },
            "example": {
                "feature": "support",
                "operation": "answer",
                "kind": "chat",
                "provider": "openai",
                "model": "gpt-4o-mini",
                "prompt": "Where is my order?",
                "response": "On its way.",
                "duration_ns": 1_200_000_000,
                "usage": {"input_tokens": 9, "output_tokens": 4},
                "actor": {"user_id": "ana", "persona_id": "helper"},
            },
        },
        FRAMES: {"schema": {"type": "string", "format": "binary"}},
    },
}
ANSWERS = documented(
    _408="The body did not arrive in time.",
    _413="The batch is too large: split it.",
    _415="A content type or encoding that is not known here.",
    _429="The server has as much to do as it takes on; `Retry-After` says when to try again.",
)
