"""`/api/flowledger/v1`: calls and sessions page by page, and sums by any dimension."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from flowledger.questions import DIMENSIONS, Sums
from flowledger.questions.over import PAGE_TOKEN
from flowledger.questions.parts import largest_and_others
from flowledger.questions.tracking import time_text
from flowledger.server.analytics.answers import Number, Speed
from flowledger.server.analytics.asking import Asker
from flowledger.server.analytics.parameters import About, Days, Limit
from flowledger.server.problems import documented

__all__ = ["router"]

PREFIX = "/api/flowledger/v1"
ANSWERS = documented(
    _404="There is no such call, feature or experiment.", _429="Too much is asked at once."
)
Page = Annotated[
    str | None,
    Query(
        max_length=8016,
        pattern=f"^{PAGE_TOKEN}$",
        description="`next` of the page before; none for the first.",
    ),
]
Dimension = Annotated[
    str,
    Query(
        max_length=254,
        pattern=f"^({'|'.join(DIMENSIONS)}|tag:[^\\x00]+)$",
        description="What calls are told apart by; `tag:<key>` is one of the caller's own tags.",
    ),
]
CallId = Annotated[
    str, Path(max_length=40, description="The id of a call or of its trace, or how it begins.")
]


class CallInList(BaseModel):
    """A call in a list."""

    id: str
    start: str
    feature: str | None
    operation: str
    kind: str
    provider: str | None
    model: str | None
    user_id: str | None
    session_id: str | None
    persona_id: str | None
    total_tokens: int | None
    cost_usd: float | None
    latency_ms: float
    success: bool
    error_type: str | None
    parent_id: str | None


class Calls(BaseModel):
    """A page of calls, newest first."""

    calls: list[CallInList]
    next: str | None = Field(description="The page after this one; null at the end.")


class Numbers(BaseModel):
    """What calls add up to."""

    calls: int
    failed: int
    error_rate: Number
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost_usd: Number
    unpriced: int
    estimated: int = Field(description="Calls whose cost rests on estimated tokens.")
    estimated_cost_usd: Number
    avg_latency_ms: Number


class SessionInList(Numbers):
    """A session with the sums over its calls."""

    session_id: str
    user_id: str | None = Field(description="The user; null where there is none, or several.")
    users: int = Field(description="How many users the calls name.")
    first: str
    last: str


class Sessions(BaseModel):
    """A page of sessions, the one last active first."""

    sessions: list[SessionInList]
    next: str | None = Field(description="The page after this one; null at the end.")


class Part(Numbers):
    """The calls with one value of a dimension; null is no value."""

    value: str | None


class Usage(BaseModel):
    """Cost and tokens by one dimension, the most calls first."""

    by: str
    period_days: int
    usage: list[Part]
    others: Numbers | None = Field(
        description="The calls with values beyond `limit`; null when every value is listed."
    )


class Percentiles(BaseModel):
    """Percentiles of latency in ms, within 2 %; null without calls."""

    period_days: int
    p50: Speed | None
    p90: Speed | None
    p95: Speed | None
    p99: Speed | None


def router(asker: Asker) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix=PREFIX, tags=["exploring"], responses=ANSWERS)
    exploring = _Exploring(asker)
    for path, endpoint in (
        ("/recent", exploring.recent),
        ("/calls/{call_id}", exploring.call),
        ("/sessions", exploring.sessions),
        ("/usage", exploring.usage),
        ("/percentiles", exploring.percentiles),
    ):
        routes.add_api_route(path, endpoint, operation_id=f"ask_{endpoint.__name__}")
    return routes


class _Exploring:
    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def recent(
        self,
        request: Request,
        about: About,
        days: Days = 30,
        limit: Limit = 50,
        page: Page = None,
    ) -> Calls:
        """Calls from the latest on; with `session_id=` the turns of a session."""
        found = await self._asker.ask(
            request,
            lambda ledger, may: about.over(ledger, may, days).calls(limit, page),
        )
        rows = [
            CallInList(start=time_text(row.start_ms), **_without(row, "start_ms"))
            for row in found.rows
        ]
        return Calls(calls=rows, next=found.next)

    async def call(self, request: Request, call_id: CallId) -> dict[str, Any]:
        """Everything kept about one call, its prompt and response included."""

        found = await self._asker.ask(request, lambda ledger, may: ledger.call(call_id, may))
        built: dict[str, Any] = msgspec.to_builtins(found)
        return built

    async def sessions(
        self,
        request: Request,
        about: About,
        days: Days = 30,
        limit: Limit = 50,
        page: Page = None,
    ) -> Sessions:
        """Sessions from the one that was last active on."""
        found = await self._asker.ask(
            request,
            lambda ledger, may: about.over(ledger, may, days).sessions(limit, page),
        )
        rows = [
            SessionInList(
                session_id=row.session_id,
                user_id=row.user_id,
                users=row.users,
                first=time_text(row.first_ms or 0),
                last=time_text(row.last_ms or 0),
                **_numbers(row),
            )
            for row in found.rows
        ]
        return Sessions(sessions=rows, next=found.next)

    async def usage(
        self,
        request: Request,
        about: About,
        by: Dimension = "model",
        days: Days = 30,
        limit: Limit = 100,
    ) -> Usage:
        """Calls, tokens and cost by any dimension; by `user_id` those who use the most."""
        rows, others = await self._asker.ask(
            request,
            lambda ledger, may: largest_and_others(about.over(ledger, may, days), by, limit),
        )
        parts = [Part(value=row.value, **_numbers(row)) for row in rows]
        rest = None if others is None else Numbers(**_numbers(others))
        return Usage(by=by, period_days=days, usage=parts, others=rest)

    async def percentiles(self, request: Request, about: About, days: Days = 30) -> Percentiles:
        """How long calls take: what 50, 90, 95 and 99 per cent of them do not exceed."""
        found = await self._asker.ask(
            request,
            lambda ledger, may: about.over(ledger, may, days).percentiles(),
        )
        return Percentiles(period_days=days, **msgspec.structs.asdict(found))


def _numbers(row: Sums) -> dict[str, Any]:
    same = ("calls", "failed", "error_rate", "input_tokens", "output_tokens", "total_tokens")
    costs = ("cost_usd", "unpriced", "estimated", "estimated_cost_usd")
    numbers = {name: getattr(row, name) for name in (*same, *costs)}
    return {**numbers, "avg_latency_ms": row.mean_latency_ms}


def _without(row: msgspec.Struct, name: str) -> dict[str, Any]:
    fields = msgspec.structs.asdict(row)
    del fields[name]
    return fields
