"""`/api/flowledger/v1/evidence`: what evidence lacks, as `flowledger evidence check` tells it."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from flowledger.audit.evidence import Evidence, check
from flowledger.audit.policy import Policy, policy_of
from flowledger.questions.window import LONGEST_DAYS
from flowledger.server.analytics.asking import Asker
from flowledger.server.problems import documented

__all__ = ["router"]

PREFIX = "/api/flowledger/v1"
MS_OF_A_DAY = 86_400_000
Days = Annotated[
    int | None,
    Query(ge=1, le=LONGEST_DAYS, description="Calls of so many days up to now; all without it."),
]
Counts = dict[str, int]


class Short(BaseModel):
    """One kind of thing that is short, and where; an empty name stands for calls without one."""

    kind: str
    what: str
    count: int = Field(ge=1)
    by_feature: Counts
    by_user: Counts
    by_day: Counts
    by_source: Counts
    examples: list[str]
    allowed: bool = Field(description="The policy lists it and does not fail.")


class Found(BaseModel):
    """What evidence lacks."""

    holds: bool = Field(description="Whether the policy holds.")
    calls: int = Field(ge=0)
    first_ms: int | None
    newest_ms: int | None
    shortfalls: list[Short]


def router(asker: Asker) -> APIRouter:
    """The route."""
    routes = APIRouter(
        prefix=f"{PREFIX}/evidence",
        tags=["evidence"],
        responses=documented(_429="Too much is asked at once."),
    )
    asked = _Asked(asker, policy_of(asker.settings))
    routes.add_api_route("", asked.evidence, operation_id="ask_evidence")
    return routes


class _Asked:
    """Answers with what `check` finds, among what the user may read."""

    def __init__(self, asker: Asker, policy: Policy) -> None:
        self._asker = asker
        self._policy = policy

    async def evidence(self, request: Request, days: Days = None) -> Found:
        """What evidence lacks, by user, feature and day.

        Numbers that are missing and programs fallen silent are told to those alone who may read
        every experiment.
        """
        first_ms = 0 if days is None else time.time_ns() // 1_000_000 - days * MS_OF_A_DAY
        found: Evidence = await self._asker.ask(
            request,
            lambda ledger, readable: check(
                self._asker.settings, self._policy, first_ms=first_ms, experiments=readable
            ),
        )
        return Found.model_validate(found, from_attributes=True)
